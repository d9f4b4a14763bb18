// What is kept: the button, the panel behind it, and the person's key, which this browser makes and holds. The server
// answers each question with JSON; titles and words of people are put into the page as text, never as HTML.
(() => {
  const remanso = window.remanso;
  if (!remanso?.say) return;
  const KEY = "remanso.key", TALK = "remanso.conversation", FORM = /^[A-Za-z0-9_-]{43}$/;
  const WAIT_MS = 40000, RETRY_MS = 3000, TRIES = 20, MAX_BYTES = 5e6;
  const say = remanso.say, find = (selector) => document.querySelector(selector);
  const forgetful = !(window.localStorage instanceof Storage); // ours, in a frame where the browser's is blocked
  let arrived = false, kept = false, list = [], found = null, last = null, now = "", state = "", name = "", open = false, drawn = "";

  const key = () => localStorage.getItem(KEY) || "";
  const facts = () => JSON.parse(find("#kept").dataset.facts);
  const newKey = () => btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(32)))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");

  // --- questions to the server, one at a time, through hidden parts of the page

  const waiting = [];
  let number = 0, timer;
  function ask(what, more = {}) {
    return new Promise((resolve) => {
      waiting.push({ action: { do: what, number: ++number, ...more }, resolve });
      if (waiting.length === 1) next();
    });
  }
  function next() {
    if (!waiting.length) return;
    timer = setTimeout(() => remanso.answered(""), WAIT_MS);
    find("#keeping-ask").click();
  }
  remanso.wish = () => JSON.stringify({ ...waiting[0]?.action, key: key() });
  remanso.came = () => JSON.stringify({ do: "arrive", key: key(), conversation: sessionStorage.getItem(TALK) || "" });
  remanso.answered = (text) => {
    const answer = text ? JSON.parse(text) : { error: say("kept.unreachable"), code: "unreachable", number: waiting[0]?.action.number };
    if (waiting.length && answer.number === waiting[0].action.number) {
      clearTimeout(timer);
      const { resolve } = waiting.shift();
      hear(answer);
      resolve(answer);
      next();
    } else if (answer.did) hear(answer);
  };

  function hear(answer) {
    if (remanso.gone) return;
    if (answer.did === "arrive") arrived = true;
    if (answer.did === "liked") return liked(answer);
    const before = kept;
    if ("kept" in answer) kept = answer.kept;
    if ("name" in answer) name = answer.name;
    if (answer.list && answer.did !== "search") list = answer.list;
    if (answer.last) last = answer.last[0] || null;
    if (answer.conversation) {
      now = answer.conversation;
      state = answer.state;
      if (kept && state) sessionStorage.setItem(TALK, now); else sessionStorage.removeItem(TALK);
    }
    if (before !== kept && open) draw();
    dress();
  }

  // A server that was started anew knows nobody: it is told again whose conversation this tab shows.
  addEventListener("remanso.restarted", async () => {
    const had = sessionStorage.getItem(TALK) || "";
    for (let tries = 0; had && tries < TRIES; tries++) {
      const answer = await ask("arrive", { conversation: had });
      if (!answer.error) {
        if (answer.kept && answer.conversation === had) find("#notice-restart").dataset.say = "kept.recovered";
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  });

  // --- pieces

  function el(tag, given = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) {
      if (name.includes("-") || name === "role") element.setAttribute(name, value); else element[name] = value;
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }
  const button = (words, act, given = {}) => el("button", { type: "button", textContent: words, onclick: act, ...given });
  const tell = (words, focus = false) => {
    const told = find("#kept-told");
    if (!told) return;
    told.textContent = words;
    if (focus) told.focus();
  };
  const day = (time) => new Intl.DateTimeFormat(remanso.language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(time));

  // Does something that may take a moment, and says how it went: the words for it, or the server's for why not.
  async function doing(what, more, words) {
    tell(say("kept.working"));
    const answer = await ask(what, more);
    tell(answer.error || (typeof words === "function" ? words(answer) : words) || "", Boolean(answer.error));
    return answer.error ? null : answer;
  }

  // A reply that still streams belongs to the conversation that is to be left.
  async function quiet() {
    find("#message .stop-button")?.click();
    for (let tries = 0; find("#message .stop-button") && tries < 50; tries++) await new Promise((resolve) => setTimeout(resolve, 100));
  }

  // Puts a question in a button's place, with the ways to answer it; the keyboard goes to the question.
  function sure(place, question, ...ways) {
    const words = el("p", { textContent: question, tabIndex: -1 });
    const box = el("div", { className: "kept-sure", role: "group", "aria-label": question }, words);
    const back = () => { box.remove(); place.hidden = false; place.querySelector("button, summary")?.focus(); };
    box.append(...ways.map(([label, act, danger]) => button(label, act, { className: danger ? "danger" : "" })), button(say("kept.no"), back));
    place.after(box);
    place.hidden = true;
    words.focus();
  }

  function download(text, form) {
    const url = URL.createObjectURL(new Blob([text], { type: form === "json" ? "application/json" : "text/markdown" }));
    el("a", { href: url, download: `remanso-${new Date().toISOString().slice(0, 10)}.${form}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  async function take(form, id = "") {
    const answer = await doing("export", { form, id });
    if (answer) download(answer.text, form);
  }

  // --- what a person may do

  async function consent(yes) {
    const fresh = yes && !key() && !name;
    if (fresh) localStorage.setItem(KEY, newKey());
    const answer = await doing("consent", { yes }, say(yes ? "kept.started" : "kept.withdrawn"));
    if (!answer && fresh) localStorage.removeItem(KEY);
    draw();
    find("#kept-told")?.focus();
  }
  async function openOne(id) {
    await quiet();
    const answer = await doing("open", { id });
    if (!answer) return;
    last = null;
    show(false);
    find("#message textarea")?.focus();
  }
  async function remove(what, id) {
    await quiet();
    const words = (answer) => !answer.confirmed ? say("kept.deleted.later") : answer.remains === "collection" ? say("kept.deleted.collection") : say(id ? "kept.deleted" : "kept.forgotten");
    const answer = await doing(what, id ? { id } : {}, words);
    if (answer && !id) localStorage.removeItem(KEY);
    if (answer && (!last || !id || last.id === id)) last = null;
    found = null;
    draw();
    find("#kept-told")?.focus();
  }
  async function search(words) {
    const answer = words.trim() ? await doing("search", { words }, (got) => got.list.length ? say("kept.count", { count: got.list.length }) : say("kept.nothing")) : null;
    found = answer ? answer.list : null;
    if (!words.trim()) tell("");
    shelves();
  }
  async function bring(file) {
    if (!file) return;
    if (file.size > MAX_BYTES) return tell(say("kept.too_large"), true);
    await doing("import", { text: await file.text() }, (answer) => say("kept.imported", answer));
    draw();
    find("#kept-told")?.focus();
  }
  async function useKey(typed) {
    const before = key(), given = typed.trim();
    if (!FORM.test(given)) return tell(say("error.history_key"), true);
    localStorage.setItem(KEY, given);
    const answer = await doing("list", {});
    if (answer && (answer.kept || answer.list.length)) {
      await doing("arrive", {}, say("kept.have.used"));
    } else {
      localStorage.setItem(KEY, before);
      if (!before) localStorage.removeItem(KEY);
      await ask("list"); // before it is told: who types on at once must not lose the box to the focus
      if (answer) tell(say("error.history_unknown"));
      return find("#kept-told")?.focus();
    }
    draw();
    find("#kept-told")?.focus();
  }
  async function dropKey() {
    localStorage.removeItem(KEY);
    list = [];
    found = last = null;
    await doing("arrive", {}, say("kept.key.dropped"));
    kept = false;
    sessionStorage.removeItem(TALK);
    draw();
    find("#kept-told")?.focus();
  }

  // --- the panel

  function terms() {
    const { days, place, sealed } = facts(), hub = place !== "sql";
    const row = (key, ...words) => [el("dt", { textContent: say(`kept.${key}.title`) }), el("dd", { textContent: words.filter(Boolean).join(" ") })];
    return el("dl", {},
      ...row("what", say("kept.what")),
      ...row("where", say(`kept.where.${place}`), sealed && say("kept.sealed")),
      ...row("long", days ? say("kept.long", { days }) : say("kept.long.ever")),
      ...row("who", say(`kept.who.${hub ? "hub" : "sql"}`)),
      ...row("gone", say("kept.gone"), place === "dataset" && say("kept.gone.dataset")));
  }

  function offer() {
    const start = button(say("kept.start"), () => consent(true), { className: "primary", disabled: true });
    const box = el("input", { type: "checkbox", id: "kept-yes", onchange: () => { start.disabled = !box.checked; } });
    return [
      el("p", { textContent: say("kept.intro") }), terms(),
      forgetful ? el("p", { className: "kept-note", textContent: say("kept.blocked") }) : null,
      el("p", { className: "kept-check" }, box, el("label", { htmlFor: "kept-yes", textContent: say("kept.yes") })),
      el("p", { className: "kept-tools" }, start),
      account(), name ? null : haveKey(),
    ];
  }

  function account() {
    if (!facts().login) return null;
    const go = (where) => () => location.assign(`__ROOT__${where}?_target_url=/${encodeURIComponent(location.search)}`);
    return name
      ? el("p", { className: "kept-tools" }, el("span", { textContent: say("kept.login.as", { name }) }), button(say("kept.logout"), go("logout")))
      : el("p", { className: "kept-tools" }, button(say("kept.login"), go("login/huggingface")), el("span", { textContent: say("kept.login.why") }));
  }

  function haveKey() {
    const input = el("input", { id: "kept-given", autocomplete: "off", spellcheck: false, autocapitalize: "off" });
    const form = el("form", { className: "kept-tools", onsubmit: (event) => { event.preventDefault(); useKey(input.value); } },
      el("label", { htmlFor: "kept-given", textContent: say("kept.have.label") }), input, el("button", { textContent: say("kept.have.use") }));
    return el("details", {}, el("summary", { textContent: say("kept.have") }), form);
  }

  function myKey() {
    const shown = el("output", { id: "kept-key" });
    const place = el("p", { className: "kept-tools" });
    place.append(
      button(say("kept.key.show"), () => { shown.textContent = key(); }),
      button(say("kept.key.copy"), () => navigator.clipboard.writeText(key()).then(() => tell(say("kept.key.copied")), () => { shown.textContent = key(); })),
      button(say("kept.key.drop"), dropKey));
    return el("details", { className: "kept-key" }, el("summary", { textContent: say("kept.key") }),
      el("p", { textContent: say("kept.key.how") }), el("p", { textContent: say("kept.key.leave") }), place, shown);
  }

  function shelf(one) {
    const title = el("button", { type: "button", className: "kept-open", onclick: () => openOne(one.id), "aria-label": `${say("kept.open")}: ${one.title}` }, one.title || "…");
    if (one.id === now) title.setAttribute("aria-current", "true");
    const about = [day(one.updated), say("kept.messages", { count: one.messages }), one.id === now && say("kept.now")];
    const tools = el("div", { className: "kept-tools" });
    tools.append(
      button(say("kept.rename"), () => rename(tools, one)),
      button(say("kept.md"), () => take("md", one.id)),
      button(say("kept.json"), () => take("json", one.id)),
      button(say("kept.delete"), () => sure(tools, say("kept.delete.sure"), [say("kept.delete.yes"), () => remove("delete", one.id), true]), { className: "danger" }));
    return el("li", {}, title, one.excerpt ? el("p", { className: "kept-excerpt", textContent: one.excerpt }) : null,
      el("p", { className: "kept-about", textContent: about.filter(Boolean).join(" · ") }),
      el("details", {}, el("summary", { textContent: say("kept.more"), "aria-label": say("kept.more.of", { title: one.title }) }), tools));
  }

  function rename(tools, one) {
    const input = el("input", { value: one.title, maxLength: 120, "aria-label": say("kept.rename.label") });
    const back = () => { form.remove(); tools.hidden = false; tools.querySelector("button").focus(); };
    const form = el("form", { className: "kept-tools", onsubmit: async (event) => {
      event.preventDefault();
      if (await doing("rename", { id: one.id, title: input.value }, say("kept.renamed"))) { found = null; draw(); find("#kept-told").focus(); }
    } }, input, el("button", { textContent: say("kept.rename.go") }), button(say("kept.no"), back));
    tools.after(form);
    tools.hidden = true;
    input.focus();
    input.select();
  }

  function shelves() {
    const rows = found || list;
    find("#kept-list")?.replaceChildren(...(rows.length ? [el("ul", {}, ...rows.map(shelf))] : [el("p", { textContent: say(found ? "kept.nothing" : "kept.none") })]));
  }

  function finding() {
    const input = el("input", { type: "search", id: "kept-words" });
    return el("form", { className: "kept-tools", role: "search", onsubmit: (event) => { event.preventDefault(); search(input.value); } },
      el("label", { htmlFor: "kept-words", textContent: say("kept.search") }), input, el("button", { textContent: say("kept.search.go") }),
      button(say("kept.search.all"), () => { input.value = ""; search(""); }));
  }

  function everything() {
    const file = el("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: () => { bring(file.files[0]); file.value = ""; } });
    const tools = el("div", { className: "kept-tools" });
    const leave = () => sure(tools, say("kept.withdraw.sure"), [say("kept.withdraw.delete"), () => remove("forget"), true], [say("kept.withdraw.keep"), () => consent(false)]);
    const all = list.length ? [
      button(say("kept.all.md"), () => take("md")), button(say("kept.all.json"), () => take("json"))] : [];
    tools.append(...all, ...(kept ? [button(say("kept.import"), () => file.click()), file, button(say("kept.withdraw"), leave)] : []),
      button(say("kept.forget"), () => sure(tools, say("kept.forget.sure"), [say("kept.delete.yes"), () => remove("forget"), true]), { className: "danger" }));
    return [el("h3", { textContent: say("kept.all") }), tools];
  }

  function draw() {
    const box = find("#kept");
    if (!box) return;
    box.hidden = !open;
    drawn = remanso.language;
    if (!open) return box.replaceChildren();
    const title = say(kept ? "kept.mine" : "kept.save"), told = find("#kept-told");
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", title);
    const body = kept
      ? [finding(), el("div", { id: "kept-list" }), ...everything(), account(), name ? null : myKey(),
        el("details", {}, el("summary", { textContent: say("kept.what.title") }), terms())]
      : [...offer(), ...(list.length ? [el("p", { textContent: say("kept.still") }), finding(), el("div", { id: "kept-list" }), ...everything(), name ? null : myKey()] : [])];
    if (!box.firstChild) {
      box.append(
        el("div", { className: "kept-top" }, el("h2", {}), button("", () => show(false), { id: "kept-close" })),
        el("p", { id: "kept-told", role: "status", tabIndex: -1 }), el("div", { id: "kept-body" }));
    }
    if (told && !told.textContent) told.textContent = "";
    find("#kept h2").textContent = title;
    find("#kept-close").textContent = say("kept.close");
    find("#kept-body").replaceChildren(...body.filter(Boolean));
    shelves();
  }

  async function show(yes) {
    if (yes === open) return;
    open = yes;
    found = null;
    draw();
    dress();
    if (!open) return find("#keep")?.focus({ preventScroll: true });
    find("#help-close")?.click();
    find("#kept").focus();
    if (key() || name) {
      const answer = await doing("list", {}, "");
      if (answer && open) draw();
    }
  }

  // --- thumbs: after one, a word may be added

  function liked(answer) {
    const row = document.querySelectorAll("#chat .message-row")[answer.index];
    document.querySelectorAll("#chat .kept-why").forEach((box) => box.remove());
    if (answer.error || answer.up == null || !row) return;
    const id = `kept-why-${answer.index}`, input = el("input", { id, maxLength: 500, autocomplete: "off" });
    const box = el("form", { className: "kept-why kept-tools", onsubmit: async (event) => {
      event.preventDefault();
      const sent = await ask("rate", { message: answer.message, up: answer.up, word: input.value });
      box.replaceChildren(el("span", { role: "status", tabIndex: -1, textContent: sent.error || say("kept.noted") }));
      box.firstChild.focus();
    } }, el("label", { htmlFor: id, textContent: say("kept.why") }), input, el("button", { textContent: say("kept.why.send") }));
    row.append(box);
  }
  // Gradio calls its thumbs by its own words, and a pressed one in English alone.
  const THUMBS = { "me gusta": "like", like: "like", "no me gusta": "dislike", dislike: "dislike", liked: "liked", disliked: "disliked" };
  function nameThumbs() {
    for (const thumb of document.querySelectorAll("#chat .message-buttons button")) {
      const label = thumb.getAttribute("aria-label") || "";
      const which = label === thumb.dataset.said ? thumb.dataset.thumb : THUMBS[label.toLowerCase()];
      if (!which || label === say(`kept.${which}`)) continue;
      thumb.dataset.thumb = which;
      thumb.dataset.said = thumb.title = say(`kept.${which}`);
      thumb.setAttribute("aria-label", thumb.dataset.said);
    }
  }

  // --- what is always there

  function dress() {
    const keep = find("#keep"), shown = find("#kept-now"), going = find("#kept-offer");
    if (!keep || !shown || !going) return;
    keep.hidden = !arrived;
    keep.dataset.say = kept ? "kept.mine" : "kept.save";
    if (keep.dataset.state !== (kept ? state : "")) keep.dataset.state = kept ? state : "";
    for (const [name, value] of [["aria-expanded", String(open)], ["aria-controls", "kept"]])
      if (keep.getAttribute(name) !== value) keep.setAttribute(name, value);
    const words = kept && (state === "away" || state === "full") ? say(`kept.state.${state}`) : "";
    if (shown.textContent !== words) shown.textContent = words;
    const empty = !find("#chat .message-row"), wanted = kept && last && empty && !open && last.id !== now ? say("kept.offer", last) : "";
    if (going.textContent !== wanted) going.replaceChildren(...(wanted ? [button(wanted, () => openOne(last.id), { className: "chip" })] : []));
    find("#keeping").toggleAttribute("data-shown", Boolean(open || words || wanted));
    nameThumbs();
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#keep")) show(!open);
    if (event.target.closest?.("#help-now")) show(false);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && event.target.closest?.("#kept")) show(false);
  });
  remanso.looks.push(() => {
    if (open && (drawn !== remanso.language || !find("#kept").firstChild)) draw();
    dress();
  });
})();

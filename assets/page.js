// What the page says of itself: connection, typing, times, languages. Words come from the catalogue alone.
(() => {
  const remanso = window.remanso;
  if (!remanso) return; // as a web component in someone else's page, which we leave as it is
  const catalogue = __CATALOGUE__;
  const POLL_MS = 15000, LOOK_MS = 250;
  const TYPED_POLL_MS = 3000;
  let online = navigator.onLine, boot = null, polled = 0, wasClosed = false, draft = sessionStorage.getItem("remanso.draft");

  const say = (key, values = {}) =>
    (catalogue[remanso.language][key] || key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
  remanso.say = say;
  remanso.looks = []; // what else looks at the page whenever it may have changed
  const find = (selector) => document.querySelector(selector);
  const put = (element, name, value) => { if (element && element.getAttribute(name) !== value) element.setAttribute(name, value); };
  const write = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };

  remanso.switch = () => {
    remanso.language = remanso.language === "es" ? "en" : "es";
    localStorage.setItem("remanso.language", remanso.language);
    import("__CORE_MODULE__").then((core) => core.changeLocale(remanso.language));
    look();
    return [remanso.language, remanso.region];
  };
  // Gradio loads the page again after a lost connection: this tab then asks for the session that it had.
  const before = sessionStorage.getItem("remanso.session") || "";
  remanso.arrived = () => [remanso.language, remanso.region, before];

  function remember() {
    if (remanso.gone) return; // who leaves quickly wants nothing kept
    const beat = performance.getEntriesByType("resource").map((entry) => entry.name.match(/\/heartbeat\/([^/?]+)/)).find(Boolean);
    if (beat) sessionStorage.setItem("remanso.session", beat[1]);
    sessionStorage.setItem("remanso.draft", find("#message textarea")?.value || "");
  }

  const turn = () => {
    try { return JSON.parse(find("#turn [data-turn]").dataset.turn); } catch { return {}; }
  };
  remanso.turn = turn;

  function status() {
    const now = turn();
    if (!online) return ["offline", say("page.offline")];
    if (find("#message .stop-button")) {
      if (now.place) return ["queued", say("page.queued", now)];
      if (now.loading != null) return ["loading", say("page.loading", { percent: Math.round(now.loading * 100) })];
      return ["replying", say("page.replying")];
    }
    return ["connected", say("page.connected")];
  }

  function times() {
    const now = turn(), rows = document.querySelectorAll("#chat .message-row");
    const clock = new Intl.DateTimeFormat(remanso.language, { hour: "2-digit", minute: "2-digit" });
    rows.forEach((row, index) => {
      const known = (now.messages || [])[index];
      const user = row.classList.contains("user-row");
      put(row, "role", "group");
      put(row, "aria-label", say(user ? "page.you" : "page.assistant"));
      const at = known ? new Date(known.time * 1000) : (row.seenAt ||= new Date());
      const mark = known && known.finish && known.finish !== "stop" ? " · " + say("page.mark." + known.finish) : "";
      put(row, "data-time", clock.format(at) + mark);
    });
  }

  // What Gradio says in English alone: elements, and what each is called in the language of the moment.
  const named = new Map();
  function translate() {
    const name = (selector, words) => document.querySelectorAll(selector).forEach((element) => named.set(element, words));
    name("#chat button:is([aria-label^='Copy '], [title^='Copy '])", () => say("page.copy"));
    name("#chat button:is([aria-label^='Copied'], [title^='Copied'])", () => say("page.copied"));
    name("#chat svg[aria-label=undo], #chat button:is([title=Deshacer], [title=Undo])", () => say("page.undo"));
    name("#chat .scroll-down-button-container button", () => say("page.scroll"));
    name("#chat .edit-textarea", () => say("page.message"));
    // A bubble has no role that takes a name, and this one would be read aloud with all its Markdown; its row is named.
    document.querySelectorAll("#chat [data-testid=user], #chat [data-testid=bot]").forEach((bubble) => bubble.removeAttribute("aria-label"));
    document.querySelectorAll('a[href^="tel:"][target]').forEach((link) => link.removeAttribute("target")); // no empty tab
    for (const [element, words] of named) {
      if (!element.isConnected) named.delete(element);
      put(element, "aria-label", words());
      if (element.title) put(element, "title", words());
    }
    for (const toast of document.querySelectorAll(".toast-text"))
      if (/^Connection to the server/.test(toast.textContent.trim())) write(toast, say("page.reconnecting"));
  }

  // The box is closed while a reply streams; whoever was typing finds the keyboard in it again.
  function refocus(box) {
    if (wasClosed && !box.disabled && document.activeElement === document.body && matchMedia("(pointer: fine)").matches) box.focus();
    wasClosed = box.disabled;
  }

  // Until the first word is there, the conversation says that a reply is on its way.
  function typing() {
    const last = [...document.querySelectorAll("#chat .message-row")].at(-1);
    const begun = last && !last.classList.contains("user-row") && last.innerText.trim();
    if (find("#message .stop-button") && !begun) put(find("#chat"), "data-typing", say("page.typing"));
    else find("#chat")?.removeAttribute("data-typing");
  }

  // The keyboard goes into the panel when it opens, and back to its button when it is closed.
  let opened = false;
  function panel() {
    const help = find("#help"), inside = Boolean(help);
    if (inside === opened) return;
    opened = inside;
    if (help?.contains(document.activeElement)) return; // an exercise was asked for, and has the keyboard already
    (help || find("#help-now")).focus({ preventScroll: true }); // the red button stays in sight
  }

  function look() {
    if (remanso.gone) return;
    const [state, words] = status();
    put(find("#status"), "data-state", state);
    write(find("#status"), words);
    document.title = find("#header h1")?.textContent || document.title;
    document.querySelectorAll("[data-say]").forEach((element) => write(element, say(element.dataset.say)));
    put(document.documentElement, "lang", remanso.language);
    document.querySelectorAll("a[data-page]").forEach((link) => put(link, "href", `__ROOT__${link.dataset.page}?lang=${remanso.language}`));
    put(find("#chat [role=log]"), "aria-label", say("page.conversation"));
    put(find("#chat .bubble-wrap"), "tabindex", "0"); // what scrolls can be scrolled with the keyboard
    for (const [name, value] of [["role", "region"], ["tabindex", "-1"], ["aria-label", say("page.help")]]) put(find("#help"), name, value);
    panel();
    document.querySelectorAll("[data-label-of]").forEach((element) => put(element, "aria-label", say(element.dataset.labelOf)));
    put(find("#tools")?.parentElement, "data-remanso", ""); // for the styles, which Gradio confines to its own container
    put(find("#message .stop-button"), "aria-label", say("page.stop"));
    const box = find("#message textarea"), send = find("#message .submit-button");
    put(box, "aria-label", say("page.message"));
    if (box && box.placeholder !== say("page.placeholder")) box.placeholder = say("page.placeholder");
    put(send, "aria-label", say("page.send"));
    if (send && box) send.disabled = !box.value.trim() || !online;
    if (box) refocus(box);
    if (box && draft) { box.value = draft; draft = null; box.dispatchEvent(new Event("input", { bubbles: true })); }
    translate();
    typing();
    times();
    remanso.looks.forEach((looks) => looks());
  }

  async function poll() {
    polled = Date.now();
    try {
      const answer = await fetch("__ROOT__health", { cache: "no-store", signal: AbortSignal.timeout(8000) });
      const health = await answer.json();
      if (boot && boot !== health.boot) {
        find("#notice-restart")?.removeAttribute("hidden");
        find("#resync")?.click();
        dispatchEvent(new Event("remanso.restarted"));
      }
      boot = health.boot;
      online = true;
    } catch { online = false; }
    look();
  }

  addEventListener("offline", () => { online = false; look(); });
  addEventListener("online", poll);
  addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  document.addEventListener("input", look);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") find("#help-close")?.click();
    if (Date.now() - polled > TYPED_POLL_MS) poll();
    // A message that cannot leave, or is none, stays in the box: a failed send would make Gradio load the page again.
    const box = event.target.closest?.("#message textarea");
    if (box && event.key === "Enter" && !event.shiftKey && (!online || !box.value.trim())) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }, true);
  // A prompt to begin with is sent as if it had been typed.
  document.addEventListener("click", (event) => {
    const prompt = event.target.closest?.("#starters button"), box = find("#message textarea");
    if (!prompt || !box || box.disabled) return;
    box.value = prompt.textContent;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    requestAnimationFrame(() => find("#message .submit-button:not(:disabled)")?.click());
  });
  let due = false;
  new MutationObserver(() => {
    if (!due) requestAnimationFrame(() => { due = false; look(); });
    due = true;
  }).observe(document.documentElement, { childList: true, subtree: true });
  setInterval(look, LOOK_MS);
  setInterval(poll, POLL_MS);
  addEventListener("pagehide", remember);
  poll();
})();

// Beside a help card: in which country the person is, with one tap, and the way to the exercises and the plan. The server
// says which replies hold a card; the words are the catalogue's.
(() => {
  const remanso = window.remanso;
  if (!remanso?.say) return;
  const NEAR = { es: ["ES", "MX", "CO", "AR"], en: ["US", "GB", "CA", "AU"] }; // offered first; the others in a list
  const CHIPS = 4, SCROLL_MS = [0, 150, 600]; // Gradio goes to the end of what is new, some moments later
  const ALL = __COUNTRIES__;
  const say = remanso.say, find = (selector) => document.querySelector(selector);
  let answered = Boolean(sessionStorage.getItem("remanso.answered") || localStorage.getItem("remanso.country")), known = null, refocus = null, shown = -1;
  let asking = false, held = 0; // the question was opened again; rows there were when a card was brought to the top

  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const named = (code) => say(`safety.country.${code}`);

  function choose(code) {
    answered = true;
    asking = false;
    refocus = remanso.wished = code;
    sessionStorage.setItem("remanso.answered", "1");
    if (code === known) return remanso.looks.forEach((looks) => looks());
    find("#in-country")?.click();
  }

  function question(country) {
    const near = [...new Set([country, ...NEAR[remanso.language]])].filter((code) => ALL.includes(code)).slice(0, CHIPS);
    const chips = near.map((code) => {
      const chip = make("button", { type: "button", className: "chip", textContent: named(code), onclick: () => choose(code) });
      chip.setAttribute("aria-pressed", String(code === country));
      return chip;
    });
    const rest = ALL.filter((code) => !near.includes(code)).sort((a, b) => named(a).localeCompare(named(b), remanso.language));
    const list = make("select", { className: "chip", ariaLabel: say("safety.aid.other"), onchange: () => choose(list.value) },
      make("option", { value: "", textContent: say("safety.aid.other"), selected: true, disabled: true }),
      ...rest.map((code) => make("option", { value: code, textContent: named(code) })));
    return [...chips, list];
  }

  // Where the lines are, and whether that is where the person is.
  function where(country, kind) {
    const told = country ? say("safety.aid.where", { country: named(country) }) : say("safety.aid.unknown");
    const box = make("div", { className: "where", role: "group", ariaLabel: say("page.country"), ariaLive: "off" });
    if (country && !asking && (answered || kind === "compact")) {
      const change = make("button", { type: "button", className: "link", textContent: say("safety.aid.change") });
      change.onclick = () => { asking = true; refocus = country; remanso.looks.forEach((looks) => looks()); };
      box.append(make("span", { textContent: told }), " ", change);
    } else {
      box.append(make("span", { textContent: country ? `${told} ${say("safety.aid.elsewhere")}` : told }), make("div", { className: "chips" }, ...question(country)));
    }
    return box;
  }

  function more() {
    const calm = make("button", { type: "button", className: "chip", textContent: say("safety.aid.breathe"), onclick: exercise });
    const plan = make("a", { className: "chip", target: "_blank", textContent: say("page.plan") });
    plan.dataset.page = "plan";
    return make("div", { className: "more chips", ariaLive: "off" }, calm, plan);
  }

  function exercise() {
    if (!find("#help")) find("#help-now").click();
    const wait = setInterval(() => {
      const breath = find("#help [data-calm=breathe]");
      if (!breath) return;
      clearInterval(wait);
      breath.open = true;
      breath.querySelector("button").focus();
    }, 50);
  }

  function dress(row, kind, country) {
    const words = row.querySelector(".message-content .prose"), state = `${remanso.language} ${country} ${answered} ${asking}`;
    const old = [...row.querySelectorAll(".where, .more")];
    if (!words || (old.length === 2 && old[0].dataset.state === state)) return;
    old.forEach((part) => part.remove());
    const box = where(country, kind);
    box.dataset.state = state;
    (words.querySelector("ul") || words.querySelector("p"))?.after(box);
    words.append(more());
    // The button that was pressed is gone; the answer may take a moment, and then takes its place in turn.
    if (refocus !== null) box.querySelector("button").focus({ preventScroll: true });
    if (refocus === country) refocus = null;
  }

  // The card begins with care and the phone lines: that is what has to be in sight, not its end.
  function toTop(row) {
    const log = find("#chat [role=log]");
    held = document.querySelectorAll("#chat .message-row").length;
    for (const wait of SCROLL_MS) setTimeout(() => { if (row.isConnected && held) log.scrollTop += row.getBoundingClientRect().top - log.getBoundingClientRect().top - 8; }, wait);
  }

  remanso.looks.push(() => {
    const { cards = {}, country = null } = remanso.turn(), rows = [...document.querySelectorAll("#chat .message-row")];
    if (country === null) return;
    if (known !== null && country && country !== known) {
      answered = true; // in the panel, or on another card
      localStorage.setItem("remanso.country", country);
    }
    known = country;
    const kinds = rows.map((row, number) => cards[number] || "");
    rows.forEach((row, number) => { if (row.dataset.card !== kinds[number]) row.dataset.card = kinds[number]; });
    const last = kinds.findLastIndex((kind) => kind && kind !== "soft");
    rows.forEach((row, number) => { if (number !== last) row.querySelectorAll(".where, .more").forEach((part) => part.remove()); });
    if (last >= 0) dress(rows[last], kinds[last], country);
    if (kinds.includes("violence")) find("#tools").parentElement.dataset.leave = "";
    if (last >= 0 && last !== shown && last === rows.length - 1 && kinds[last] !== "compact") toTop(rows[last]);
    shown = last;
    // Gradio takes that for a person who reads further up, and would leave what comes next out of sight.
    if (held && rows.length > held && rows.at(-1).classList.contains("user-row")) {
      const log = find("#chat [role=log]");
      log.scrollTop = log.scrollHeight;
      held = 0;
    }
  });
})();

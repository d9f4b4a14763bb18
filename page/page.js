// What the page says of itself: connection, typing, times, languages. Words come from the catalogue alone.
(() => {
  const remanso = window.remanso;
  const catalogue = __CATALOGUE__;
  const POLL_MS = 15000, LOOK_MS = 250;
  let online = navigator.onLine, boot = null;

  const say = (key, values = {}) =>
    (catalogue[remanso.language][key] || key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const find = (selector) => document.querySelector(selector);
  const put = (element, name, value) => { if (element && element.getAttribute(name) !== value) element.setAttribute(name, value); };
  const write = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };

  remanso.switch = () => {
    remanso.language = remanso.language === "es" ? "en" : "es";
    localStorage.setItem("remanso.language", remanso.language);
    import("__CORE_MODULE__").then((core) => core.changeLocale(remanso.language));
    return [remanso.language];
  };
  remanso.began = () => [remanso.language, remanso.region];

  const turn = () => {
    try { return JSON.parse(find("#turn [data-turn]").dataset.turn); } catch { return {}; }
  };

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

  function look() {
    const [state, words] = status();
    put(find("#status"), "data-state", state);
    write(find("#status"), words);
    document.title = find("#header h1")?.textContent || document.title;
    document.querySelectorAll("[data-say]").forEach((element) => write(element, say(element.dataset.say)));
    put(document.documentElement, "lang", remanso.language);
    put(find("#chat [role=log]"), "aria-label", say("page.conversation"));
    put(find("#message .stop-button"), "aria-label", say("page.stop"));
    const box = find("#message textarea"), send = find("#message .submit-button");
    put(box, "aria-label", say("page.message"));
    if (box && box.placeholder !== say("page.placeholder")) box.placeholder = say("page.placeholder");
    put(send, "aria-label", say("page.send"));
    if (send && box) send.disabled = !box.value.trim() || !online;
    times();
  }

  async function poll() {
    try {
      const answer = await fetch("__ROOT__health", { cache: "no-store", signal: AbortSignal.timeout(8000) });
      const health = await answer.json();
      if (boot && boot !== health.boot) find("#notice-restart")?.removeAttribute("hidden");
      boot ||= health.boot;
      online = true;
    } catch { online = false; }
    look();
  }

  addEventListener("offline", () => { online = false; look(); });
  addEventListener("online", poll);
  addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  document.addEventListener("input", look);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") find("#help-close")?.click(); });
  setInterval(look, LOOK_MS);
  setInterval(poll, POLL_MS);
  addEventListener("DOMContentLoaded", poll);
})();

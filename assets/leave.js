// Leaving at once: somebody who may not be seen here gets another page in this one's place, and nothing stays half done.
(() => {
  const remanso = window.remanso;
  if (!remanso) return;
  const PRESSES = 3, WITHIN_MS = 2000, PLAN = "remanso.plan";
  const away = `https://${remanso.language}.wikipedia.org/`;
  let pressed = [];

  function erase(store) {
    const keep = !/"erase":true/.test(store.getItem(PLAN) || "");
    for (const key of Object.keys(store)) if (key.startsWith("remanso.") && !(key === PLAN && keep)) store.removeItem(key);
  }

  remanso.leave = () => {
    remanso.gone = true;
    document.documentElement.style.display = "none"; // at once: the other page may take its time
    document.title = "Wikipedia";
    for (const name of ["localStorage", "sessionStorage"]) try { erase(window[name]); } catch { /* blocked: nothing is kept */ }
    if (window.top === window) return location.replace(away);
    // In someone else's page the whole tab has to leave; where the browser forbids it, at least our part is empty.
    try { window.top.location.replace(away); } catch { /* forbidden */ }
    setTimeout(() => location.replace("about:blank"), 500);
  };

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#leave, #help-leave")) remanso.leave();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return void (pressed = []);
    if (event.repeat) return;
    pressed = [...pressed, Date.now()].slice(-PRESSES);
    if (pressed.length === PRESSES && pressed.at(-1) - pressed[0] < WITHIN_MS) remanso.leave();
  }, true);
})();

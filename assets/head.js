// Runs before Gradio: what it needs to find, and what it must not find.
(() => {
  // In a frame whose storage the browser blocks, touching localStorage throws and Gradio never starts.
  for (const name of ["localStorage", "sessionStorage"]) {
    try { window[name].length; } catch {
      const kept = new Map();
      const shim = {
        getItem: (key) => (kept.has(String(key)) ? kept.get(String(key)) : null),
        setItem: (key, value) => void kept.set(String(key), String(value)),
        removeItem: (key) => void kept.delete(String(key)),
        clear: () => kept.clear(),
        key: (index) => [...kept.keys()][index] ?? null,
        get length() { return kept.size; },
      };
      Object.defineProperty(window, name, { value: shim, configurable: true });
    }
  }
  // Gradio makes the session hash, which opens the conversation, from Math.random: let it be unguessable.
  Math.random = () => {
    const [high, low] = crypto.getRandomValues(new Uint32Array(2));
    return ((high >>> 5) * 67108864 + (low >>> 6)) / 9007199254740992;
  };
  // The browser's languages choose ours, unless the person chose with the switch or the link with ?lang=.
  const ours = ["es", "en"];
  const wished = [
    new URLSearchParams(location.search).get("lang"), localStorage.getItem("remanso.language"), ...navigator.languages,
  ].map((tag) => (tag || "").slice(0, 2).toLowerCase());
  window.remanso = {
    language: wished.find((tag) => ours.includes(tag)) || "__DEFAULT_LANGUAGE__",
    region: localStorage.getItem("remanso.country") || window.remansoCountry,
  };
  for (const name of ["language", "languages"]) {
    Object.defineProperty(navigator, name, {
      get: () => (name === "language" ? window.remanso.language : [window.remanso.language]), configurable: true,
    });
  }
})();

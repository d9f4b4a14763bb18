// The safety plan: kept in this browser if it lets us, printed and downloaded from here. Nothing of it is ever sent.
(() => {
  const remanso = window.remanso, KEY = "remanso.plan", SAVE_MS = 300;
  const form = document.querySelector("#plan"), kept = document.querySelector("#kept"), sure = document.querySelector("#sure");
  const say = remanso.say = (key, values = {}) => remanso.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const fields = [...form.elements].filter((field) => field.name && field.name !== "erase" && field.name !== "country");
  let waiting = null;
  document.documentElement.dataset.remanso = "";

  // In someone else's page the browser may forbid it: touching the storage then throws.
  const store = (() => {
    try { localStorage.setItem("remanso.try", ""); localStorage.removeItem("remanso.try"); return localStorage; } catch { return null; }
  })();

  const rows = (step) => fields.filter((field) => field.name.startsWith(`${step}.`) && field.name.endsWith(".name"))
    .map((field) => [field.value.trim(), form.elements[field.name.replace("name", "phone")].value.trim()]);
  const dialled = (phone) => phone.replace(/[^\d+*#]/g, "");
  const shownLines = () => document.querySelector(`[data-country="${form.elements.country.value}"]`);

  function show(plan) {
    for (const field of fields) field.value = plan?.fields?.[field.name] || "";
    form.elements.erase.checked = Boolean(plan?.erase);
    const guess = (store?.getItem("remanso.country") || window.remansoCountry);
    const wished = plan ? plan.country : guess;
    form.elements.country.value = [...form.elements.country.options].some((option) => option.value === wished) ? wished : "";
    draw();
  }

  function draw() {
    document.querySelectorAll("[data-country]").forEach((lines) => { lines.hidden = lines !== shownLines(); });
    for (const link of document.querySelectorAll("[data-call]")) {
      const phone = dialled(form.elements[`${link.dataset.call}.phone`].value);
      link.hidden = phone.length < 3;
      link.href = `tel:${phone}`;
      const name = form.elements[`${link.dataset.call}.name`].value.trim();
      link.ariaLabel = name ? `${say("safety.plan.call")}: ${name}` : say("safety.plan.call");
    }
  }

  const read = () => { try { return JSON.parse(store?.getItem(KEY)); } catch { return null; } };

  function keep() {
    waiting = null;
    if (!store || remanso.gone) return;
    const filled = Object.fromEntries(fields.filter((field) => field.value).map((field) => [field.name, field.value]));
    const plan = { version: 1, fields: filled, country: form.elements.country.value, erase: form.elements.erase.checked };
    try { store.setItem(KEY, JSON.stringify(plan)); } catch { return void (kept.textContent = say("safety.plan.unkept")); }
    const time = new Intl.DateTimeFormat(remanso.language, { hour: "2-digit", minute: "2-digit" }).format(new Date());
    kept.textContent = say("safety.plan.kept", { time });
  }

  // What is printed and downloaded: the plan as text, with numbers that a phone can call.
  function sheet() {
    const page = document.createElement("article");
    const add = (tag, text) => page.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
    add("h1", remanso.title);
    remanso.steps.forEach((step, number) => {
      const contacts = rows(step).filter((contact) => contact.some(Boolean));
      add("h2", `${number + 1}. ${say(`safety.plan.${step}`)}`);
      if (form.elements[step]) add("p", form.elements[step].value.trim());
      for (const [name, phone] of contacts) {
        const line = add("p", name && phone ? `${name}: ` : name);
        if (phone) line.append(Object.assign(document.createElement("a"), { href: `tel:${dialled(phone)}`, textContent: phone }));
      }
      if (step === "pros") page.append(...[...shownLines().children].map((child) => child.cloneNode(true)));
    });
    return page;
  }

  function download() {
    const style = "body{font:1.1rem/1.5 sans-serif;max-width:42rem;margin:1rem auto;padding:0 1rem}p{white-space:pre-line}";
    const title = document.createElement("title");
    title.textContent = remanso.title;
    const text = `<!doctype html><html lang="${remanso.language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
      `${title.outerHTML}<style>${style}</style></head><body>${sheet().innerHTML}</body></html>`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/html" }));
    link.download = "plan.html";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const lay = () => document.querySelector("#sheet").replaceChildren(...sheet().childNodes);

  function forget() {
    clearTimeout(waiting);
    waiting = null;
    store?.removeItem(KEY);
    show(null);
    ask(false);
    kept.textContent = say("safety.plan.deleted");
  }

  // Asked in the page: inside someone else's page a browser shows no dialog.
  function ask(asked) {
    sure.hidden = !asked;
    (asked ? sure : form.querySelector("[data-do=delete]")).focus();
  }

  const does = { download, print: () => print(), delete: () => ask(true), "delete.yes": forget, "delete.no": () => ask(false) };
  form.addEventListener("click", (event) => does[event.target.dataset?.do]?.());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    draw();
    clearTimeout(waiting);
    waiting = setTimeout(keep, SAVE_MS);
  });
  addEventListener("pagehide", () => { if (waiting) keep(); });
  addEventListener("beforeprint", lay);
  addEventListener("storage", (event) => { if (event.key === KEY && !waiting) show(read()); }); // changed in another tab
  const plan = read();
  show(plan);
  kept.textContent = say(!store ? "safety.plan.unkept" : plan ? "safety.plan.found" : "safety.plan.empty");
  if (!store) document.querySelector("#private").hidden = true;
})();

// What can be measured of a page's accessibility in the state it is in. Returns a line for each fault; none is sound.
() => {
  const LARGE = 24, LARGE_BOLD = 18.66; // pixels (WCAG 2.2, 1.4.3)
  const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(".sr-only");
  const told = (element) => element.outerHTML.slice(0, 120);
  const faults = [];

  // 1.4.3: contrast. Opacity counts; of what lies behind, plain colours.
  const colour = (text) => {
    const parts = text.match(/[\d.]+/g).map(Number);
    const rgb = text.startsWith("color(") ? parts.slice(0, 3).map((part) => part * 255) : parts.slice(0, 3);
    return [...rgb, parts[3] ?? 1];
  };
  const over = (top, under) => under.map((part, i) => top[i] * top[3] + part * (1 - top[3]));
  const linear = (part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
  for (const element of document.querySelectorAll("#help *, #tools *, #reminder *, #chat .message *, main *, nav *")) {
    const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!words || !seen(element) || element.closest("option, :disabled")) continue;
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(at);
    const behind = chain.reduce((under, at) => over(colour(getComputedStyle(at).backgroundColor), under), [255, 255, 255]);
    const style = getComputedStyle(element), [red, green, blue, alpha] = colour(style.color);
    const shown = chain.reduce((all, at) => all * Number(getComputedStyle(at).opacity), alpha);
    const [text, ground] = [light(over([red, green, blue, shown], behind)), light(behind)];
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05), size = parseFloat(style.fontSize);
    const large = size >= LARGE || (size >= LARGE_BOLD && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)}: ${told(element)}`);
  }

  // 2.5.8: a target has 24 pixels at least; links within a sentence are excepted.
  for (const target of document.querySelectorAll("button, summary, select, input, textarea, .chip")) {
    const { width, height } = target.getBoundingClientRect();
    if (seen(target) && (width < 24 || height < 24)) faults.push(`small ${width}x${height}: ${told(target)}`);
  }

  // 4.1.2: a name for each control, no name on what has no role, no id twice.
  const named = (element) =>
    element.ariaLabel?.trim() || element.innerText?.trim() || element.title ||
    [...(element.labels || [])].some((label) => label.innerText.trim());
  for (const control of document.querySelectorAll("button, a[href], input, select, textarea, summary, [role=button]"))
    if (seen(control) && !named(control)) faults.push(`no name: ${told(control)}`);
  for (const element of document.querySelectorAll("div[aria-label]:not([role]), span[aria-label]:not([role]), p[aria-label]"))
    if (seen(element)) faults.push(`a name without a role: ${told(element)}`);
  const ids = [...document.querySelectorAll("body [id]")].filter((element) => !element.closest("svg")).map((element) => element.id);
  for (const id of new Set(ids.filter((id, i) => id && ids.indexOf(id) !== i))) faults.push(`twice: #${id}`);

  // 1.4.10: nothing to scroll sideways for.
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`wide: ${document.documentElement.scrollWidth}`);
  return faults;
}

// Elements, numbers and announcements as all views want them. Texts only ever become text nodes, never markup.

/** An element: `make("p.soft", {title: "..."}, "text", child)`. Properties are set as such, functions as listeners. */
export function make(kind, properties = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name.includes("-") || name === "role" || name === "for" || name === "scope") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const find = (id) => document.getElementById(id);

/** 0.9453 -> "94.5 %"; what is nearly certain is not rounded to 0 or 100. */
export function percent(share, digits = 1) {
  const step = 10 ** -digits;
  if (share < 1 && share * 100 > 100 - step / 2) return `> ${(100 - step).toFixed(digits)}\u00a0%`;
  if (share > 0 && share * 100 < step / 2) return `< ${step.toFixed(digits)}\u00a0%`;
  return `${(share * 100).toFixed(digits)}\u00a0%`;
}

export const count = (value) => Math.round(value).toLocaleString("en");
export const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
export const rate = (value) => (value >= 10 ? count(value) : value.toLocaleString("en", { maximumFractionDigits: 1 }));
export const milliseconds = (value) => (value >= 9950 ? `${(value / 1000).toFixed(0)}\u00a0s` : `${count(value)}\u00a0ms`);

/** Seconds in words of one or two units: "48 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}\u00a0s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}\u00a0min ${whole % 60}\u00a0s`;
  return `${Math.floor(minutes / 60)}\u00a0h ${minutes % 60}\u00a0min`;
}

/** Bytes as a reader wants them. */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(0)}\u00a0kB` : `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
}

/** The beginning of a text, its last word whole where there are words, and an ellipsis where more follows. */
export function shortened(text, most) {
  if (text.length <= most) return text;
  const space = text.slice(0, most + 1).search(/\s+\S*$/);
  const end = space > most / 2 ? space : most;
  return `${text.slice(0, end).replace(/[\ud800-\udbff]$/, "")}\u2026`; // no half of a character
}

const TURNING = /[\p{Bidi_C}\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** A piece of a sentence that may be read from right to left, so that it turns nothing around it. */
export const isolated = (text) => (TURNING.test(text) ? `\u2068${text}\u2069` : text);

/** Names as a sentence lists them. */
export function listed(names, word = "and") {
  const parts = names.map(isolated);
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} ${word} ${parts.at(-1)}`;
}

/** A horizontal bar of a share (0 to 1); what it shows stands in text beside it. */
export function bar(share, kind = "bar") {
  const fill = make("span");
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make(`span.${kind}`, { "aria-hidden": "true" }, fill);
}

/** Tell a screen reader, politely, without moving the focus. */
export function announce(words) {
  find("announcer").textContent = "";
  setTimeout(() => { find("announcer").textContent = words; }, 50); // an equal text is told again
}

/** Whether a key press belongs to a field somebody types or chooses in. */
export function inField(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.isComposing
    || event.target.closest("input:not([type=checkbox]), textarea, select") !== null;
}

/** Let the page draw and listen before the work goes on. */
export const breathe = () => new Promise((resume) => setTimeout(resume));

// Which words decided: the text with its words marked for and against the label, as the reports mark them.

import { count, isolated, listed, make, shortened } from "./dom.js";

const BOUNDS = [0.1, 0.35, 0.7]; // shares of the heaviest word from which words are marked more strongly (explanation/words.py)
const NAMED = 4; // words a sentence names of each side
const LONGEST = 40; // characters of each

/** The text as a paragraph, not marked yet; `mark` fills the same paragraph, so that nothing moves. */
export function plain(text) {
  const node = make("p.marked", { dir: "auto" }, text);
  sizes.observe(node);
  return node;
}

// A long text scrolls in its place, so that what stands below it stays near; where it does, a keyboard has to get there.
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const scrolls = target.scrollHeight > target.clientHeight;
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "The text"]]) {
      if (scrolls) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});

/** Mark the words in a paragraph made by `plain`. Their places count Unicode code points, as Python does. */
export function mark(paragraph, text, words, label) {
  const points = Array.from(text);
  const cut = (from, to) => points.slice(from, to).join("");
  if (words.some((word) => cut(word.start, word.end) !== word.text)) return; // another text than was sent
  const heaviest = Math.max(...words.map((word) => Math.abs(word.score)), 0);
  const pieces = [];
  let end = 0;
  for (const word of words) {
    const strength = heaviest ? BOUNDS.filter((bound) => Math.abs(word.score) / heaviest > bound).length : 0;
    const speaks = word.score > 0 ? "for" : "against";
    const title = `speaks ${speaks} ${label}: ${word.score > 0 ? "+" : "\u2212"}${Math.abs(word.score).toFixed(2)}`;
    pieces.push(cut(end, word.start), strength ? make(`span.${speaks}${strength}`, { title }, word.text) : word.text);
    end = word.end;
  }
  const rest = cut(end);
  paragraph.replaceChildren(...pieces, unread(text, words) ? make("span.cut", {}, rest) : rest);
}

/** Where reading ended before the text did, in a sentence (explanation/attributions.py has the same); "" where all was read. */
export function unread(text, words) {
  const points = Array.from(text);
  const end = words.at(-1)?.end ?? points.length;
  if (!/[\p{L}\p{N}]/u.test(points.slice(end).join(""))) return "";
  return `The classifier reads no further than character ${count(end)} of ${count(points.length)}: the rest was cut and had no part in the answer.`;
}

/** The same in a sentence, which needs no eyes for colours. */
export function inWords(words, given) {
  const label = isolated(given);
  const heaviest = Math.max(...words.map((word) => Math.abs(word.score)), 0);
  const heavy = words.filter((word) => Math.abs(word.score) > BOUNDS[0] * heaviest)
    .sort((one, other) => Math.abs(other.score) - Math.abs(one.score));
  const named = (side) => [...new Set(heavy.filter(side).map((word) => shortened(word.text, LONGEST)))].slice(0, NAMED)
    .map((text) => `\u201c${isolated(text)}\u201d`);
  const speaking = named((word) => word.score > 0);
  const against = named((word) => word.score < 0);
  if (!speaking.length && !against.length) return "No word weighs more than the others.";
  const parts = [];
  if (speaking.length) parts.push(`For ${label}: ${listed(speaking)}`);
  if (against.length) parts.push(`${parts.length ? "against" : `Against ${label}`}: ${listed(against)}`);
  return `${parts.join("; ")}.`;
}

/** What the marks mean. */
export function legend(label) {
  return make("p.legend.soft", {}, make("span.marked", {}, make("span.for3", {}, "Underlined")), ` words speak for ${isolated(label)}, `,
    make("span.marked", {}, make("span.against3", {}, "dotted")), " ones against it, the heavier the stronger.");
}

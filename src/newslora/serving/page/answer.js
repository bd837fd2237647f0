// One answer as a reader sees it: the section, how sure, why, every probability, who answered, and the way to correct it.

import { given } from "./batch.js";
import { Correction, named } from "./correct.js";
import { bar, listed, make, percent } from "./dom.js";
import { plain } from "./words.js";

const SHOWN = 8; // labels before the rest is folded

/** What a calibrated probability promises, in words that hold for somebody who never heard of calibration. */
export function sureness(probability, calibrated, undecided) {
  const lead = undecided ? "If it had to choose: of" : "Of";
  const right = Math.round(probability * 100);
  if (!calibrated) {
    return `Score ${percent(probability)}. This adapter is not calibrated: the score orders its answers, it is not a share of right ones.`;
  }
  const share = probability >= 0.995 ? "more than 99 are" : `about ${right} ${right === 1 ? "is" : "are"}`;
  return `${lead} 100 answers as sure as this, ${share} right, among texts like those it was trained on.`;
}

/** The answer as a heading: the label or labels, or what it could not decide between. */
export function verdict(result, multi) {
  const labels = given(result);
  if (labels.length) return listed(labels);
  if (multi) return "No section";
  const set = result.answer_set ?? [];
  return set.length === 2 || set.length === 3 ? `Undecided: ${listed(set, "or")}` : "Undecided";
}

/** Why nothing was decided, in a sentence. */
export function hesitation(result, level) {
  const set = result.answer_set ?? [];
  const asked = level === null ? "" : ` To be right ${percent(level, Number.isInteger(level * 100) ? 0 : 1)} of the time,`;
  if (set.length > 1) return `${asked} it would have to name ${listed(set)}, so it names none.`.trim();
  return `${asked} no section fits well enough.`.trim();
}

/** All probabilities as bars, likeliest first. */
export function bars(probabilities, labels) {
  const ordered = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  const row = ([label, probability]) => make("li", {},
    make("span.name", {}, label), bar(probability, labels.includes(label) ? "bar.given" : "bar"),
    make("span.n", {}, percent(probability)));
  const list = (pairs) => make("ul.bars", {}, ...pairs.map(row));
  const rest = ordered.slice(SHOWN);
  return make("div", {}, list(ordered.slice(0, SHOWN)),
    rest.length ? make("details", {}, make("summary", {}, `${rest.length} more`), list(rest)) : null);
}

/** An article for one answer; `why` is the place where the words that decided are told. */
export function answerOf({ text, result, adapter, version, abstain, feedback }) {
  const paragraph = plain(text);
  if (result.error) {
    const words = result.error.message ?? String(result.error);
    return { node: make("article.answer.failed", {}, make("h3", {}, "Not classified"), make("p.error", {}, words), paragraph) };
  }
  const labels = given(result);
  const multi = adapter.multi_label;
  const why = make("div.why");
  const item = { text, adapter: adapter.name, labels: adapter.labels, multi, given: labels, probability: result.probability };
  const heading = make("h3", {}, verdict(result, multi));
  const marked = make("span.corrected");
  const correction = new Correction(item, (choice) => {
    marked.textContent = named(choice) === named(multi ? labels : labels[0] ?? "") ? "" : ` \u2192 ${named(choice)}`;
  });
  heading.append(marked);
  const undecided = !multi && labels.length === 0;
  const node = make("article.answer", { tabIndex: -1 },
    heading,
    undecided ? make("p", {}, hesitation(result, abstain)) : null,
    multi ? null : make("p.sure", {}, sureness(result.probability, adapter.calibrated, undecided)),
    paragraph, why,
    result.probabilities ? bars(result.probabilities, labels) : null,
    ...(feedback ? [
      make("p.ask", {}, multi ? "Not right? Choose the right sections and send them." : "Not right? Choose the right section.",
        correction.digits ? make("span.hint.soft", {}, " Or leave the box with Esc and press its digit.") : null),
      correction.node,
    ] : [make("p.soft.ask", {}, "This server takes no corrections.")]),
    make("p.soft.made", {}, `Answered by ${adapter.name}, version `, make("code", {}, version)));
  return { node, correction: feedback ? correction : null, paragraph, why };
}

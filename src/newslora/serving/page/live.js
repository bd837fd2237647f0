// The view of what the server does now: asked for every few seconds while somebody looks, and not otherwise.

import { ask } from "./api.js";
import { bar, count, counted, duration, find, listed, make, milliseconds, percent, rate } from "./dom.js";
import { Overview } from "./overview.js";
import { sentence } from "./task.js";

const PERIOD = 3000; // milliseconds between an answer and the next question
const LONGEST = 30_000; // after failures the pause doubles up to this
const FEW = 2; // adapters that are told of beside each other
const FULL = 0.8; // share of the queue's bound from which it is said to be nearly full

export class Live {
  constructor() {
    Object.assign(this, { shown: false, declined: false }); // declined: the server wants a key that nobody has
    this.line = find("live-status");
    this.overview = new Overview(() => {
      this.#drawAdapters();
      find("live-adapters").querySelector(".drift").scrollIntoView({ block: "nearest" });
    });
    document.addEventListener("visibilitychange", () => this.#turn());
  }

  /** The view comes or goes. */
  show(shown) {
    this.shown = shown;
    this.#turn();
  }

  /** Another key is used. */
  recover() {
    this.declined = false;
    this.#turn();
  }

  #turn() {
    clearTimeout(this.timer);
    this.asked?.abort();
    this.pause = PERIOD;
    if (this.shown && !document.hidden) this.#look();
  }

  async #look() {
    const asked = this.asked = new AbortController();
    try {
      const status = await ask("GET", "/v1/status", { signal: asked.signal, background: this.declined });
      if (asked.signal.aborted) return;
      this.#draw(status);
      this.#tell(`As of ${new Date().toLocaleTimeString()}; over the last minute.`);
      this.pause = PERIOD;
    } catch (error) {
      if (asked.signal.aborted) return;
      if (error.status === 401) this.declined = true; // asked for once, not every few seconds
      this.pause = error.retryAfter ? error.retryAfter * 1000 : Math.min(LONGEST, this.pause * 2);
      this.#tell(`${sentence(error)}${find("live-figures").childElementCount ? " What stands below is older." : ""} Asking again in ${duration(this.pause / 1000)}.`, "error");
    }
    this.timer = setTimeout(() => this.#look(), this.pause);
  }

  #tell(words, kind = "") {
    this.line.textContent = words;
    this.line.dataset.kind = kind;
  }

  #draw(status) {
    const { load, queue } = status;
    const figures = [
      ["requests a second", rate(load.requests_per_second)], ["texts a second", rate(load.texts_per_second)],
      ["half within", time(load.p50_ms)], ["99 of 100 within", time(load.p99_ms)],
      ["texts waiting", `${count(queue.rows)} of ${count(queue.rows_bound)}`],
    ];
    find("live-figures").replaceChildren(...figures.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    const full = queue.share >= FULL;
    find("live-load").textContent = full ? "The queue is nearly full: soon requests are turned away." : "";
    this.adapters = Object.entries(status.adapters).filter(([, one]) => one.last_hour);
    this.#drawAdapters();
  }

  /** A few are all told of; of many there is a table, and one is told of. */
  #drawAdapters() {
    const many = this.adapters.length > FEW;
    find("overview").hidden = !many;
    if (many) this.overview.draw(this.adapters);
    const told = many ? this.adapters.filter(([name]) => name === this.overview.chosen) : this.adapters;
    find("live-adapters").replaceChildren(...told.map(([name, one]) => adapterOf(name, one)));
  }
}

const time = (value) => (value === null || value === undefined ? "\u2013" : milliseconds(value));

/** One adapter: what it answered in the last hour, beside its baseline (where that is not told: beside all since the start). */
function adapterOf(name, one) {
  const hour = one.last_hour;
  const base = one.drift?.baseline_labels ?? one.since_start.labels;
  const before = one.drift?.baseline_labels ? one.drift.baseline : "since the start";
  const labels = [...new Set([...Object.keys(base), ...Object.keys(hour.labels)])];
  const share = (mix, label) => (Object.hasOwn(mix, label) ? mix[label] : 0) / Math.max(1, total(mix));
  const rows = labels.map((label) => make("tr", {},
    make("th", { scope: "row" }, label || "none"),
    make("td", {}, pair(share(hour.labels, label), total(base) ? share(base, label) : null)),
    make("td.n", {}, percent(share(hour.labels, label))), make("td.n", {}, total(base) ? percent(share(base, label)) : "\u2013")));
  const facts = [`${counted(hour.texts, "answer")} in the last hour`];
  if (hour.mean_confidence !== null) facts.push(`sure to ${percent(hour.mean_confidence)} on average`);
  if (hour.share_abstained) facts.push(`${percent(hour.share_abstained)} left undecided`);
  if (one.corrections) facts.push(counted(one.corrections, "correction"));
  const heads = [["label"], ["share"], ["last hour", "n"], [before, "n"]];
  return make("section.adapter", {},
    make("h3", {}, name, " ", make("code.soft", {}, one.version ?? "")),
    make("p", {}, `${facts.join(", ")}.`), make("p.drift", {}, drift(one.drift)),
    rows.length ? make("table.mix", {}, make("caption", {}, `The bar is the last hour, the mark on it: ${before}`),
      make("thead", {}, make("tr", {}, ...heads.map(([word, kind]) => make(kind ? `th.${kind}` : "th", { scope: "col" }, word)))),
      make("tbody", {}, ...rows)) : null);
}

const total = (mix) => Object.values(mix).reduce((sum, value) => sum + value, 0);

/** A bar of the share now, with a mark at the share before. */
function pair(now, before) {
  const node = bar(now, "bar.given");
  if (before !== null) {
    const at = make("i");
    at.style.left = `${before * 100}%`;
    node.append(at);
  }
  return node;
}

/** Drift in words that say what to do. */
export function drift(state) {
  if (!state || state.baseline === null || state.baseline === undefined) return "There is nothing to compare with yet: the first answers become the baseline.";
  const source = `the adapter's ${state.baseline}`;
  if (!state.labels || !state.confidence) return `Too few answers to compare with ${source} yet.`;
  const moved = [["its label mix", state.labels], ["how sure it is", state.confidence]].filter(([, shift]) => shift.shifted);
  const numbers = `(index ${state.labels.psi.toFixed(2)} for labels, ${state.confidence.psi.toFixed(2)} for sureness; a shift is named beyond ${Math.max(state.labels.limit, state.confidence.limit).toFixed(2)})`;
  if (!moved.length) return `Like ${source}: no shift in label mix or sureness ${numbers}.`;
  return `Shifted: ${listed(moved.map(([words]) => words))} differ${moved.length > 1 ? "" : "s"} from ${source} ${numbers}. `
    + "Look at some answers in Triage; if the news has changed, train on corrected ones.";
}

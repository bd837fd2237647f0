// Very many rows through the streaming endpoint, in blocks; where it stopped, it goes on.

import { Problem, stream, wait } from "./api.js";
import { breathe } from "./dom.js";
import { textOf } from "./reading.js";

const BLOCK_ROWS = 512;
const BLOCK_CHARACTERS = 250_000; // at most a megabyte of UTF-8
const BREAKS = 3; // broken connections in a row without an answer between them, before giving up
const PASSING = ["overloaded", "rate_limited", "deadline", "busy", "draining", "replaced"]; // errors that pass
const SLICE = 12; // milliseconds of work between two breaths

export class Batch {
  /** `options`: adapter, abstain (null: decide every row). */
  constructor(table, options) {
    Object.assign(this, { table, options, done: 0, blockRows: BLOCK_ROWS });
    this.results = new Array(table.rows.length); // as the server sent them, or {error: {message}}
    this.corrected = new Map(); // row -> label or labels
    this.mix = new Map(); // label -> rows
    this.undecided = 0;
    this.failed = 0;
    this.versions = new Map(); // that answered -> rows
  }

  get total() { return this.table.rows.length; }
  get finished() { return this.done === this.total; }

  /** Classify what is left. `tell` after each answer; `waiting` as in api.js. */
  async run({ signal, waiting, tell }) {
    let breaks = 0;
    while (!this.finished) {
      const before = this.done;
      try {
        await this.#block(signal, waiting, tell);
      } catch (error) {
        if (error.status === 413 && this.blockRows > 1) {
          this.blockRows = Math.ceil(this.blockRows / 4);
          continue;
        }
        if (error.status === 413) {
          this.#put(this.done, { error: { message: error.message } });
          continue;
        }
        breaks = this.done > before ? 1 : breaks + 1;
        if (!(error instanceof Problem) || error.status !== 0 || breaks > BREAKS) throw error;
        await wait(breaks, signal, (left) => waiting(left, error));
        waiting(0, error);
      }
    }
  }

  async #block(signal, waiting, tell) {
    const records = [];
    let characters = 0;
    let end = this.done;
    while (end < this.total && records.length < this.blockRows && (records.length === 0 || characters < BLOCK_CHARACTERS)) {
      const text = textOf(this.table, this.table.rows[end]);
      if (text !== "") records.push({ id: end, text }); // rows without text are not sent
      characters += text.length;
      end += 1;
    }
    const fill = (to) => { while (this.done < to) this.#put(this.done, { error: { message: "This row has no text." } }); };
    if (records.length) {
      fill(records[0].id);
      let since = performance.now();
      let at = 0;
      for await (const answer of stream(this.#path(), records, { signal, waiting })) {
        const row = records[at]?.id;
        check(answer, row);
        fill(row);
        this.#put(row, answer);
        at += 1;
        tell();
        if (performance.now() - since > SLICE) { await breathe(); since = performance.now(); }
      }
      if (at < records.length) throw new Problem("The connection to the server broke off in the middle of its answer.");
    }
    fill(end);
    tell();
  }

  #path() {
    const query = new URLSearchParams({ adapter: this.options.adapter });
    if (this.options.abstain !== null) query.set("abstain", this.options.abstain);
    return `/v1/classify/stream?${query}`;
  }

  /** The next row's answer. */
  #put(row, answer) {
    this.results[row] = answer;
    this.done = row + 1;
    if (answer.error) { this.failed += 1; return; }
    this.versions.set(answer.version, (this.versions.get(answer.version) ?? 0) + 1);
    const labels = given(answer);
    if (labels.length === 0) this.undecided += 1;
    for (const label of labels) this.mix.set(label, (this.mix.get(label) ?? 0) + 1);
  }
}

/** Refuse an answer that is not for this row, or that says the server cannot go on now: asked again, the row gets its own. */
function check(answer, row) {
  const whole = answer.error && !("adapter" in answer); // the stream's own end, not one row's
  if (whole || PASSING.includes(answer.error?.code)) throw new Problem(answer.error.message, 503, answer.error.code);
  if (row === undefined || (answer.id !== row && !answer.error)) {
    throw new Problem("The server's answers do not belong to the rows that were sent.", 500);
  }
}

/** The labels an answer gives: one, several or none. */
export function given(answer) {
  return answer.labels ?? (answer.label === null || answer.label === undefined ? [] : [answer.label]);
}

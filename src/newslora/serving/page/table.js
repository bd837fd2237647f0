// The rows of a file with their answers, a page at a time, so that a hundred thousand cost no more than fifty.

import { verdict } from "./answer.js";
import { given } from "./batch.js";
import { Correction, named } from "./correct.js";
import { count, find, inField, make, percent, shortened } from "./dom.js";
import { textOf } from "./reading.js";

const PAGE = 50;
const LONGEST = 280; // characters of a text before the rest is folded

export class Table {
  constructor() {
    this.body = find("rows-body");
    this.filter = find("rows-filter");
    this.order = find("rows-order");
    this.position = find("rows-position");
    this.back = find("rows-back");
    this.next = find("rows-next");
    this.filter.addEventListener("change", () => this.#begin());
    this.order.addEventListener("change", () => this.#begin());
    this.back.addEventListener("click", () => this.#turn(-1));
    this.next.addEventListener("click", () => this.#turn(1));
  }

  /** Begin with a batch; `adapter` as the server describes it. */
  open(batch, adapter, feedback) {
    Object.assign(this, { batch, adapter, feedback, page: 0, drawn: "" });
    const options = [["", "all rows"], ...adapter.labels.map((label) => [`=${label}`, label])];
    options.push(["undecided", adapter.multi_label ? "without a section" : "undecided"], ["error", "not classified"], ["corrected", "corrected"]);
    this.filter.replaceChildren(...options.map(([value, words]) => make("option", { value }, words)));
    this.order.value = "file";
    this.draw();
  }

  /** Show what is there now; rows already on screen stay as they are. */
  draw() {
    const { batch } = this;
    const plain = this.filter.value === "" && this.order.value === "file";
    const rows = plain ? null : this.#chosen();
    const total = plain ? batch.done : rows.length;
    const from = this.page * PAGE;
    const shown = Array.from({ length: Math.max(0, Math.min(PAGE, total - from)) }, (_, at) => (plain ? from + at : rows[from + at]));
    const key = shown.join();
    if (key !== this.drawn) this.body.replaceChildren(...shown.map((row) => this.#row(row)));
    this.drawn = key;
    this.position.textContent = total ? `${count(from + 1)} to ${count(from + shown.length)} of ${count(total)}` : "no rows";
    this.back.disabled = this.page === 0;
    this.next.disabled = from + PAGE >= total;
  }

  #begin() { this.page = 0; this.drawn = ""; this.draw(); }

  #turn(pages) {
    this.page += pages;
    this.draw();
    find("rows").scrollIntoView({ block: "start" });
  }

  #chosen() {
    const { results, done, corrected } = this.batch;
    const wanted = this.filter.value;
    const fits = {
      undecided: (row) => !results[row].error && given(results[row]).length === 0,
      error: (row) => Boolean(results[row].error),
      corrected: (row) => corrected.has(row),
      "": () => true,
    }[wanted] ?? ((row) => !results[row].error && given(results[row]).includes(wanted.slice(1)));
    const rows = [];
    for (let row = 0; row < done; row++) if (fits(row)) rows.push(row);
    const sure = (row) => results[row].probability ?? 2; // rows without an answer come last
    return this.order.value === "unsure" ? rows.sort((one, other) => sure(one) - sure(other)) : rows;
  }

  #row(row) {
    const result = this.batch.results[row];
    const text = textOf(this.batch.table, this.batch.table.rows[row]);
    const long = text.length > LONGEST
      ? make("details", {}, make("summary", {}, make("bdi", {}, shortened(text, LONGEST))), make("p", { dir: "auto" }, text))
      : make("div", { dir: "auto" }, text);
    const words = make("td.words", {}, text ? long : make("span.soft", {}, "no text"));
    const head = make("th.n", { scope: "row", "data-is": "row" }, count(row + 1));
    if (result.error) return make("tr.failed", {}, head, words, make("td", { colSpan: 3 }, result.error.message));
    const corrected = this.batch.corrected.get(row);
    const label = make("td.label", {}, verdict(result, this.adapter.multi_label), corrected === undefined ? null : ` \u2192 ${named(corrected)}`);
    const wrong = make("button.quiet", { type: "button", "aria-expanded": "false", "aria-label": `Correct row ${row + 1}` }, "Correct");
    wrong.addEventListener("click", () => this.#correct(wrong, row, label, words, text));
    return make("tr", {}, head, words, label, make("td.n", {}, percent(result.probability)), make("td", {}, this.feedback ? wrong : null));
  }

  #correct(button, row, label, words, text) {
    const open = words.querySelector(".correction");
    button.setAttribute("aria-expanded", String(open === null));
    if (open) return void open.remove();
    const { adapter, batch } = this;
    const result = batch.results[row];
    const item = { text, adapter: adapter.name, labels: adapter.labels, multi: adapter.multi_label, given: given(result), probability: result.probability };
    const correction = new Correction(item, (choice) => {
      const same = named(choice) === named(item.multi ? item.given : item.given[0] ?? "");
      if (same) batch.corrected.delete(row);
      else batch.corrected.set(row, choice);
      label.textContent = verdict(result, item.multi) + (same ? "" : ` \u2192 ${named(choice)}`);
    });
    words.append(correction.node);
    correction.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { correction.node.remove(); button.setAttribute("aria-expanded", "false"); button.focus(); }
      else if (!inField(event)) correction.press(event);
    });
    correction.node.querySelector("button, select")?.focus();
  }
}

// The view for a file: choose or drop it, say which columns hold the text, classify, look at the mix, take it away as CSV.

import { announce, bar, breathe, count, counted, duration, find, isolated, listed, make, percent, rate, shortened } from "./dom.js";
import { Batch, given } from "./batch.js";
import { csvLine } from "./csv.js";
import { readFile, textOf, withHeader } from "./reading.js";
import { Table } from "./table.js";
import { Task } from "./task.js";

const EXAMPLES = 3; // rows shown before anything is sent
const LONGEST = 200; // characters of each
const PACE = 200; // milliseconds between two looks at the numbers

export class FileView {
  constructor(state) {
    this.state = state;
    this.task = new Task(find("file-status"));
    this.rows = new Table();
    find("file-choice").addEventListener("change", (event) => {
      if (event.target.files.length) this.read(event.target.files[0]);
      event.target.value = ""; // the same file can be chosen again
    });
    find("file-header").addEventListener("change", (event) => this.#offer(withHeader(this.table, event.target.checked)));
    find("file-start").addEventListener("click", () => this.begin());
    find("file-save").addEventListener("click", () => this.save());
  }

  async read(file) {
    this.#clear();
    const table = await this.task.run(`Reading ${file.name}\u2026`, (signal, _, say) => readFile(file, say, signal), () => this.read(file));
    if (table) this.#offer(table);
  }

  /** What was dropped: one file is read. */
  drop({ files, items }) {
    const folder = items[0]?.webkitGetAsEntry?.()?.isDirectory;
    if (files.length === 1 && !folder) this.read(files[0]);
    else if (files.length > 1) this.task.rest(`${count(files.length)} files were dropped, and one is taken at a time.`, "error");
    else this.task.rest(`What was dropped is ${folder ? "a folder" : "no file"}. Choose a CSV, JSON lines or text file.`, "error");
  }

  /** Texts that came another way, as if each were a row of a file. */
  take(name, texts) {
    this.#clear();
    this.#offer({ name, columns: ["text"], rows: texts.map((text) => [text]), header: null, chosen: [0], remarks: [] });
  }

  #clear() {
    this.task.stop();
    this.task.rest("");
    this.batch = undefined;
    find("file-plan").hidden = true;
    find("file-result").hidden = true;
  }

  /** Show what was read, and which columns are taken as text. */
  #offer(table) {
    this.table = table;
    find("file-name").textContent = `${isolated(table.name)}: ${counted(table.rows.length, "row")}`;
    find("file-remarks").textContent = table.remarks.join(" ");
    find("file-header").checked = table.header === true;
    find("file-header").parentElement.hidden = table.header === null;
    const one = table.columns.length === 1;
    find("file-columns").hidden = one;
    find("file-column-list").replaceChildren(...(one ? [] : table.columns.map((name, place) => this.#column(name, place))));
    find("file-plan").hidden = false;
    find("file-result").hidden = true;
    this.#examples();
    announce(`${table.name} has ${counted(table.rows.length, "row")}. Text is taken from ${listed(table.chosen.map((place) => table.columns[place]))}.`);
  }

  #column(name, place) {
    const box = make("input", { type: "checkbox", checked: this.table.chosen.includes(place) });
    box.addEventListener("change", () => {
      const chosen = this.table.chosen.filter((other) => other !== place);
      this.table.chosen = box.checked ? [...chosen, place].sort((a, b) => a - b) : chosen;
      this.#examples();
    });
    return make("label.check", {}, box, name);
  }

  #examples() {
    const { table } = this;
    const none = table.chosen.length === 0;
    find("file-start").disabled = none;
    const words = table.rows.slice(0, EXAMPLES).map((row) => shortened(textOf(table, row), LONGEST))
      .map((text) => make("li", {}, text ? make("div", { dir: "auto" }, text) : make("span.soft", {}, "no text")));
    find("file-examples").replaceChildren(...(none ? [make("li.soft", {}, "Choose at least one column.")] : words));
  }

  async begin() {
    const adapter = await this.task.run("Asking the server\u2026", (signal, waiting) => this.state.adapter(signal, waiting), () => this.begin());
    if (!adapter) return;
    const abstain = adapter.multi_label ? null : this.state.abstain();
    this.adapter = adapter;
    this.batch = new Batch({ ...this.table, chosen: [...this.table.chosen] }, { adapter: adapter.name, abstain });
    find("file-result").hidden = false;
    this.rows.open(this.batch, adapter, this.state.feedback);
    this.#go();
  }

  async #go() {
    const { batch } = this;
    const start = { done: batch.done, time: performance.now() };
    let looked = 0;
    const look = (last) => {
      if (this.batch !== batch || (!last && performance.now() - looked < PACE)) return;
      looked = performance.now();
      this.#numbers(batch, start);
      this.rows.draw();
    };
    look(true);
    const ended = await this.task.run("Classifying\u2026", async (signal, waiting) => {
      await batch.run({ signal, waiting, tell: () => look(false) });
      return true;
    }, () => this.#go());
    if (this.batch !== batch) return;
    look(true);
    if (ended) announce(`${counted(batch.total, "row")} classified. ${this.#mixInWords(batch)}`);
    else if (!this.task.running) this.task.again.textContent = "Go on";
  }

  #numbers(batch, start) {
    const progress = find("file-progress");
    Object.assign(progress, { max: Math.max(1, batch.total), value: batch.done });
    const seconds = (performance.now() - start.time) / 1000;
    const speed = seconds > 0.5 ? (batch.done - start.done) / seconds : 0;
    const parts = [`${count(batch.done)} of ${counted(batch.total, "row")}`];
    if (speed) parts.push(`${rate(speed)} rows/s`);
    if (speed && this.task.running && !batch.finished) parts.push(`${duration((batch.total - batch.done) / speed)} left`);
    if (batch.failed) parts.push(`${count(batch.failed)} not classified`);
    find("file-numbers").textContent = parts.join(", ");
    const versions = [...batch.versions].map(([version, rows]) => `${version} (${counted(rows, "row")})`);
    find("file-made").textContent = !versions.length ? "" : versions.length === 1
      ? `Answered by ${batch.options.adapter}, version ${[...batch.versions.keys()][0]}`
      : `The adapter ${batch.options.adapter} was replaced meanwhile. Versions that answered: ${listed(versions)}.`;
    this.#mix(batch);
    find("file-save").textContent = batch.finished ? "Save as CSV" : "Save what is done as CSV";
    find("file-save").disabled = batch.done === 0;
  }

  /** The label mix, in the adapter's own order, so that bars grow in place. */
  #mix(batch) {
    const answered = batch.done - batch.failed;
    const rows = this.adapter.labels.map((label) => [label, batch.mix.get(label) ?? 0]);
    if (batch.options.abstain !== null || this.adapter.multi_label) rows.push([this.adapter.multi_label ? "No section" : "Undecided", batch.undecided]);
    find("file-mix").replaceChildren(...rows.map(([label, number]) => make("li", {}, make("span.name", {}, label),
      bar(answered ? number / answered : 0, "bar.given"),
      make("span.n", {}, `${count(number)} \u00b7 ${answered ? percent(number / answered) : "0.0\u00a0%"}`))));
  }

  #mixInWords(batch) {
    const ordered = [...batch.mix].sort((one, other) => other[1] - one[1]).slice(0, 4);
    return `${listed(ordered.map(([label, number]) => `${label} ${count(number)}`))}.`;
  }

  /** The file's own columns, then those `newslora predict` adds; an own one of such a name is kept under another, as there. */
  async save() {
    const { batch } = this;
    const { table } = batch;
    const several = this.adapter.multi_label;
    const abstain = batch.options.abstain !== null;
    const added = ["predicted", ...(several ? [] : ["probability"]), ...(abstain ? ["abstained", "answer_set"] : []), "error", "version", "corrected"];
    const own = table.columns.map((name) => (added.includes(name) ? kept(name, [...table.columns, ...added]) : name));
    const parts = ["\ufeff", csvLine([...own, ...added])]; // the mark tells spreadsheets that it is UTF-8
    for (let row = 0; row < batch.done; row++) {
      const { error, ...result } = batch.results[row];
      const cells = own.map((_, place) => table.rows[row][place] ?? "");
      const labels = error ? [] : given(result);
      cells.push(several ? joined(labels) : labels[0] ?? "");
      if (!several) cells.push(error ? "" : Number(result.probability.toFixed(6)));
      if (abstain) cells.push(error ? "" : String(labels.length === 0), error ? "" : joined(result.answer_set ?? []));
      const corrected = batch.corrected.get(row);
      cells.push(error?.message ?? "", result.version ?? "", Array.isArray(corrected) ? joined(corrected) : corrected ?? "");
      parts.push(csvLine(cells));
      if (row % 2000 === 1999) await breathe();
    }
    const address = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
    make("a", { href: address, download: `${table.name.replace(/\.[^.]*$/, "")}-classified.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}

/** Several labels in one cell, as a JSON list. */
const joined = (labels) => JSON.stringify(labels);

/** A name that none of `taken` has. */
function kept(name, taken) {
  do name = `input_${name}`; while (taken.includes(name));
  return name;
}

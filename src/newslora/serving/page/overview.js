// All adapters of the live view in a table, from which one is chosen.

import { count, find, listed, make } from "./dom.js";

const NAMED = 3; // adapters that have shifted, by their names; more are counted

export class Overview {
  /** `changed` is called when another one is chosen. */
  constructor(changed) {
    Object.assign(this, { changed, rows: new Map(), chosen: undefined });
    this.body = find("overview-body");
  }

  /** Show adapters as /v1/status tells of them, [name, adapter] each. Rows stay where they can, or the focus would go with them. */
  draw(adapters) {
    const names = new Set(adapters.map(([name]) => name));
    if (!names.has(this.chosen)) [this.chosen] = names;
    for (const [name, { node }] of this.rows) if (!names.has(name)) { node.remove(); this.rows.delete(name); }
    for (const [place, [name, one]] of adapters.entries()) {
      if (!this.rows.has(name)) this.rows.set(name, this.#row(name));
      const row = this.rows.get(name);
      const there = this.body.children[place] ?? null;
      if (there !== row.node) this.body.insertBefore(row.node, there);
      this.#fill(row, name, one);
    }
    find("overview-words").textContent = inWords(adapters);
  }

  #row(name) {
    const choice = make("input", { type: "radio", name: "overview", change: () => this.#choose(name) });
    const version = make("code.soft");
    const cells = ["answers", "labels", "sureness"].map(() => make("td.n"));
    const node = make("tr", {}, make("th", { scope: "row" }, make("label", {}, choice, name), " ", version), ...cells);
    return { node, choice, version, cells };
  }

  #fill({ node, choice, version, cells }, name, { version: loaded, drift }) {
    choice.checked = name === this.chosen;
    node.classList.toggle("chosen", choice.checked);
    version.textContent = loaded ?? "";
    const texts = [drift ? count(drift.window_answers) : "\u2013", moved(drift?.labels), moved(drift?.confidence)];
    for (const [place, words] of texts.entries()) cells[place].textContent = words;
    cells[1].classList.toggle("moved", shifted(drift?.labels));
    cells[2].classList.toggle("moved", shifted(drift?.confidence));
  }

  #choose(name) {
    this.chosen = name;
    this.changed();
  }
}

const shifted = (shift) => shift?.shifted === true;
const moved = (shift) => (shift ? `${shifted(shift) ? "\u25b2 " : ""}${shift.psi.toFixed(2)}` : "\u2013");

/** Which of them have shifted. */
function inWords(adapters) {
  const names = adapters.filter(([, { drift }]) => shifted(drift?.labels) || shifted(drift?.confidence)).map(([name]) => name);
  const known = adapters.filter(([, { drift }]) => drift?.labels || drift?.confidence).length;
  if (!known) return `${count(adapters.length)} adapters. None can be compared with its baseline yet.`;
  const of = known < adapters.length ? ` of the ${count(known)} that can be compared` : "";
  if (!names.length) return `${count(adapters.length)} adapters, and none${of} has shifted.`;
  const more = names.length - NAMED;
  const told = more > 0 ? [...names.slice(0, NAMED), `${count(more)} more`] : names;
  return `${count(adapters.length)} adapters. Shifted: ${listed(told)}.`;
}

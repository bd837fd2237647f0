// The view for answers the classifier was least sure of: read, press a digit, go on to the next.

import { bars, sureness, verdict } from "./answer.js";
import { ask } from "./api.js";
import { given } from "./batch.js";
import { Correction } from "./correct.js";
import { announce, counted, find, inField, make } from "./dom.js";
import { Task } from "./task.js";
import { plain } from "./words.js";

const LIMIT = 30;

export class Triage {
  constructor(state) {
    Object.assign(this, { state, items: [], at: 0 });
    this.list = find("triage-list");
    this.task = new Task(find("triage-status"));
    find("triage-load").addEventListener("click", () => this.load());
    document.addEventListener("keydown", (event) => this.#pressed(event));
    this.list.addEventListener("focusin", (event) => {
      const at = this.items.findIndex((item) => item.node.contains(event.target));
      if (at >= 0) this.#mark(at);
    });
  }

  /** Fetch the least sure answers; what was corrected before is no longer asked for. */
  async load() {
    const found = await this.task.run("Looking for the least sure answers\u2026", async (signal, waiting) => {
      const adapter = await this.state.adapter(signal, waiting);
      const query = new URLSearchParams({ adapter: adapter.name, limit: String(LIMIT) });
      return { adapter, ...await ask("GET", `/v1/uncertain?${query}`, { signal, waiting }) };
    }, () => this.load());
    if (!found) return;
    this.items = found.items.map((item, place) => this.#item(item, found.adapter, place));
    this.list.replaceChildren(...this.items.map((item) => item.node));
    const digits = this.items[0]?.correction?.digits ?? 0;
    find("triage-legend").hidden = this.items.length === 0;
    find("triage-digits").hidden = digits === 0;
    find("triage-most").textContent = String(digits);
    this.at = 0;
    const none = this.state.keeps ? "No answer waits here: those of the last hour were looked at, or there were none."
      : "This server keeps no texts to look at: its setting keep_uncertain is 0.";
    this.task.rest(this.items.length ? `${counted(this.items.length, "answer")} of ${found.adapter.name}, least sure first.` : none);
    announce(this.task.words.textContent);
    if (this.items.length) this.#mark(0);
  }

  #item(item, adapter, place) {
    const { probability } = item;
    const likely = Object.entries(item.probabilities).sort((one, other) => other[1] - one[1]);
    const labels = adapter.multi_label ? item.labels : [likely[0][0]]; // each label has a threshold of its own
    const result = { label: labels[0] ?? null, labels, probability };
    const about = { text: item.text, adapter: item.adapter ?? adapter.name, labels: adapter.labels, multi: adapter.multi_label, given: given(result), probability };
    const correction = new Correction(about, () => this.#decided(place));
    const node = make("li.answer", { tabIndex: -1 },
      plain(item.text),
      make("h3", {}, verdict(result, adapter.multi_label)),
      adapter.multi_label ? null : make("p.sure.soft", {}, sureness(probability, adapter.calibrated, false)),
      bars(item.probabilities, labels), this.state.feedback ? correction.node : make("p.soft", {}, "This server takes no corrections."));
    return { node, correction: this.state.feedback ? correction : undefined, done: false };
  }

  /** Sent: the next one that is still open, if this one was looked at. */
  #decided(place) {
    this.items[place].done = true;
    this.items[place].node.classList.add("done");
    const next = this.items.findIndex((item, at) => at > place && !item.done);
    if (place === this.at && next >= 0) this.#go(next);
    const left = this.items.filter((item) => !item.done).length;
    this.task.rest(left ? `${counted(left, "answer")} left.` : "All done. Load again for more.");
  }

  #go(at) {
    if (!this.items[at]) return;
    this.#mark(at);
    this.items[at].node.focus();
    this.items[at].node.scrollIntoView({ block: "nearest" });
  }

  #mark(at) {
    this.items[this.at]?.node.removeAttribute("aria-current");
    this.at = at;
    this.items[at].node.setAttribute("aria-current", "true");
  }

  #pressed(event) {
    if (find("view-triage").hidden || inField(event)) return;
    const item = this.items[this.at];
    if (/^[jkr]$/.test(event.key) && !find("single-keys").checked) return;
    if (event.key === "j") this.#go(document.activeElement === item?.node || this.at > 0 ? this.at + 1 : 0);
    else if (event.key === "k") this.#go(this.at - 1);
    else if (event.key === "r") this.load();
    else if (!item?.correction?.press(event)) return;
    event.preventDefault();
  }
}

// The view for a headline, or a few, one a line.

import { answerOf, verdict } from "./answer.js";
import { Problem, ask } from "./api.js";
import { announce, counted, find, inField, make } from "./dom.js";
import { Task } from "./task.js";
import { inWords, legend, mark, unread } from "./words.js";

const MOST_LINES = 20; // beyond, the file view does better

export class Single {
  /** `state`: the adapters (page.js); `asFile(lines)` takes texts that are too many for here. */
  constructor(state, asFile) {
    Object.assign(this, { state, asFile, answers: [] });
    this.box = find("headline-text");
    this.list = find("headline-answers");
    this.task = new Task(find("headline-status"));
    find("headline-form").addEventListener("submit", (event) => { event.preventDefault(); this.classify(); });
    this.box.addEventListener("keydown", (event) => this.#typed(event));
    this.box.addEventListener("input", () => this.#grow());
    document.addEventListener("keydown", (event) => this.#pressed(event));
  }

  lines() { return this.box.value.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== ""); }

  classify() {
    const texts = this.lines();
    if (texts.length > MOST_LINES) return this.asFile(texts);
    if (texts.length) return this.ask(texts);
    this.task.stop();
    this.task.rest("Type or paste a headline first.");
    this.box.focus();
  }

  /** The same texts again, as after another adapter was chosen. */
  again() { if (this.texts && !find("view-headline").hidden) this.ask(this.texts); }

  /** Another key is used: what failed may go well now. */
  recover() { if (!this.answers.length && !this.task.running) this.again(); }

  async ask(texts) {
    this.texts = texts;
    for (const one of this.answers) one.weighing?.drop();
    this.list.classList.add("old"); // until the new answers come
    const made = await this.task.run("Asking the server\u2026", async (signal, waiting) => {
      const adapter = await this.state.adapter(signal, waiting);
      const abstain = adapter.multi_label ? null : this.state.abstain();
      const options = { adapter: adapter.name, ...(abstain === null ? {} : { abstain }) };
      const answer = await ask("POST", "/v1/classify", { body: { texts, probabilities: true, ...options }, signal, waiting });
      return { answer, adapter: await this.state.named(answer, signal), options, abstain };
    }, () => this.ask(texts));
    if (made) this.#show(texts, made);
    else if (!this.task.running) this.#clear();
  }

  #clear() {
    this.answers = [];
    this.list.replaceChildren();
  }

  #show(texts, { answer, adapter, options, abstain }) {
    const { version } = answer;
    const { feedback, explains } = this.state;
    this.answers = answer.results.map((result, place) => (
      { text: texts[place], result, ...answerOf({ text: texts[place], result, adapter, version, abstain, feedback }) }
    ));
    this.list.replaceChildren(...this.answers.map((one) => make("li", {}, one.node)));
    this.list.classList.remove("old");
    announce(this.answers.length === 1 ? this.#spoken(this.answers[0], adapter) : `${counted(this.answers.length, "answer")}.`);
    for (const one of explains ? this.answers.filter((each) => each.why) : []) {
      const explain = () => this.#explain(one, version, options);
      if (this.answers.length === 1) explain();
      else one.why.append(make("button.quiet", { type: "button", click: explain }, "Which words decided?"));
    }
  }

  #spoken(one, adapter) {
    const words = one.node.querySelector(".sure, .error")?.textContent ?? "";
    return one.result.error ? `Not classified. ${words}` : `${verdict(one.result, adapter.multi_label)}. ${words}`;
  }

  /**
   * Ask for the words after the answer is there: they cost many times an answer, so they may take as long as the server allows,
   * where it says how long that is. Each answer's are a task of their own.
   */
  async #explain(one, version, options) {
    const label = one.result.label ?? likeliest(one.result.probabilities);
    const told = make("p.told.status", {}); // keeps room for what comes, so that nothing moves
    one.why.replaceChildren(legend(label), told);
    one.weighing = new Task(told);
    const words = await one.weighing.run("Weighing the words\u2026", async (signal, waiting) => {
      const body = { texts: [one.text], explain: true, ...options, timeout: this.state.longest }; // undefined is not sent
      const explained = await ask("POST", "/v1/classify", { body, signal, waiting });
      if (explained.version !== version) throw new Problem("The adapter was replaced meanwhile: classify again.");
      const words = explained.results[0].words;
      if (!words) throw new Problem(explained.results[0].error?.message ?? "The server did not tell which words decided.");
      return words;
    }, () => this.#explain(one, version, options));
    if (!words) return;
    mark(one.paragraph, one.text, words, label);
    told.className = "told";
    told.textContent = `${inWords(words, label)} ${unread(one.text, words)}`.trim();
  }

  #typed(event) {
    const touched = matchMedia("(pointer: coarse)").matches; // no Shift there, so Enter begins a line
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touched) {
      event.preventDefault();
      this.classify();
    } else if (event.key === "Escape" && this.answers.length) {
      this.answers[0].node.focus();
    }
  }

  #pressed(event) {
    if (find("view-headline").hidden || inField(event)) return;
    const held = this.answers.find((one) => one.node.contains(document.activeElement));
    const one = held ?? (this.answers.length === 1 ? this.answers[0] : undefined);
    if (one?.correction?.press(event)) event.preventDefault();
  }

  #grow() { this.box.rows = Math.min(12, Math.max(3, this.box.value.split("\n").length)); }
}

const likeliest = (probabilities) => Object.entries(probabilities).sort((one, other) => other[1] - one[1])[0][0];

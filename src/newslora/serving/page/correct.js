// The right label for an answer, sent as feedback: a button a label, the first with their digits; a list where there are many.

import { ask } from "./api.js";
import { announce, listed, make } from "./dom.js";
import { sentence } from "./task.js";

const MOST_BUTTONS = 12;
const DIGITS = 9;

export class Correction {
  /**
   * `item`: {text, adapter, labels (all), multi, given (labels answered), probability}.
   * `sent` is called with the label or labels once the server has kept them.
   */
  constructor(item, sent = () => {}) {
    this.item = item;
    this.sent = sent;
    this.state = make("span.state");
    const many = item.labels.length > MOST_BUTTONS && !item.multi;
    this.buttons = many ? [] : item.labels.map((label, place) => this.#button(label, place));
    this.digits = Math.min(DIGITS, this.buttons.length);
    this.node = make("div.correction", {},
      make("div.labels", { role: "group", "aria-label": "The right section" },
        ...(many ? [this.#choice()] : this.buttons),
        item.multi ? make("button.quiet", { type: "button", click: () => this.#sendSeveral() }, "Send these") : null),
      this.state);
  }

  /** A key was pressed: a digit that is shown chooses its label, Enter sends several. Whether it was for here. */
  press({ key, repeat }) {
    if (repeat) return false; // a key held down must not label what comes next
    if (key === "Enter" && this.item.multi && !document.activeElement?.matches("button, a, select")) {
      this.#sendSeveral();
      return true;
    }
    const place = /^[1-9]$/.test(key) ? Number(key) - 1 : -1;
    if (!this.buttons[place]?.querySelector("kbd")?.getClientRects().length) return false; // no digit that somebody sees
    this.#chosen(this.item.labels[place], place);
    return true;
  }

  #button(label, place) {
    const digit = place < DIGITS ? make("kbd", { "aria-hidden": "true" }, String(place + 1)) : null;
    const held = this.item.given.includes(label);
    const button = make("button.label", { type: "button", "aria-pressed": String(held) }, digit, label);
    button.addEventListener("click", () => this.#chosen(label, place));
    return button;
  }

  #choice() {
    const choice = make("select", { "aria-label": "The right section" },
      make("option", { value: "" }, "choose"), ...this.item.labels.map((label) => make("option", {}, label)));
    const send = make("button.quiet", { type: "button", click: () => choice.value && this.send(choice.value) }, "Send");
    return make("span.choice", {}, choice, send);
  }

  #chosen(label, place) {
    if (!this.item.multi) return void this.send(label);
    const button = this.buttons[place];
    if (button) button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  }

  #sendSeveral() {
    this.send(this.item.labels.filter((_, place) => this.buttons[place]?.getAttribute("aria-pressed") === "true"));
  }

  async send(choice) {
    if (this.busy) return;
    this.busy = true;
    const sending = `Sending ${named(choice)}\u2026`;
    this.#tell(sending);
    const { text, adapter, given, probability } = this.item;
    const body = { id: this.#id(choice), text, adapter, ...(Array.isArray(choice) ? { labels: choice } : { label: choice }) };
    if (given.length === 1) body.predicted = given[0];
    if (probability !== undefined) body.probability = probability;
    try {
      const waiting = (left, problem) => this.#tell(left ? `${problem.message} Trying again in ${left} s.` : sending);
      await ask("POST", "/v1/feedback", { body, waiting });
      this.sending = undefined;
      const same = together(choice) === together(this.item.multi ? given : given[0] ?? "");
      this.#tell(same ? `Confirmed: ${named(choice)}.` : `Corrected to ${named(choice)}. Kept as feedback.`, "good");
      this.#press(choice);
      this.sent(choice);
    } catch (error) {
      this.#tell(`Not sent. ${sentence(error)}`, "error");
    } finally {
      this.busy = false;
    }
  }

  /**
   * A choice sent again because its answer was lost is kept once, by its id. Any other sending has an id of its own: the
   * server counts the newest, and what it has kept under an id it does not keep again.
   */
  #id(choice) {
    const words = JSON.stringify(choice);
    if (this.sending?.words !== words) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      this.sending = { words, id: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") };
    }
    return this.sending.id;
  }

  #press(choice) {
    for (const [place, button] of this.buttons.entries()) {
      button.setAttribute("aria-pressed", String([choice].flat().includes(this.item.labels[place])));
    }
  }

  #tell(words, kind = "") {
    this.state.textContent = words;
    this.state.dataset.kind = kind;
    if (kind) announce(words);
  }
}

/** A label, or several, or none, in words. */
export const named = (choice) => (listed([choice].flat()) || "no section");

/** The same for the same labels, in whatever order they were given. */
const together = (choice) => named([choice].flat().sort());

// One thing at a time a view asks the server for: shown while it runs, cancelled or superseded by the next, told when it fails.

import { Problem } from "./api.js";
import { Malformed } from "./csv.js";
import { announce, counted, duration, make } from "./dom.js";

export class Task {
  /** `line`: the element that says what is going on; it keeps its height, so nothing below it moves. */
  constructor(line) {
    this.words = make("span.said");
    this.cancel = make("button.quiet", { type: "button", hidden: true, click: () => this.stop() }, "Cancel");
    this.again = make("button.quiet", { type: "button", hidden: true }, "Try again");
    this.again.addEventListener("click", () => this.retry());
    this.line = line;
    line.append(this.words, this.cancel, this.again);
  }

  get running() { return this.controller !== undefined; }

  /**
   * Do work, a function of (signal, waiting, say); whatever ran before is superseded and says no more.
   * Returns what the work returns; undefined where it was cancelled, superseded or failed. `retry` is called where the
   * user then wants it again.
   */
  async run(label, work, retry) {
    this.controller?.abort();
    const mine = new AbortController();
    Object.assign(this, { controller: mine, retry });
    const since = performance.now();
    let heard = false;
    const current = () => this.controller === mine;
    this.say(label);
    this.again.textContent = "Try again";
    this.line.setAttribute("aria-busy", "true");
    this.cancel.hidden = false;
    let waits = false;
    const clock = setInterval(() => {
      const seconds = (performance.now() - since) / 1000;
      if (!current() || seconds < 2) return;
      if (!heard) announce(this.words.textContent);
      heard = true;
      if (!waits && this.words.textContent.startsWith(label)) this.say(`${label} ${duration(seconds)}`);
    }, 500);
    const say = (words) => { if (current()) { waits = false; this.say(words); } };
    const waiting = (left, problem) => {
      if (!current()) return;
      waits = left > 0;
      this.say(left === 0 ? label : `${problem.message} Trying again in ${counted(left, "second")}.`);
    };
    try {
      const found = await work(mine.signal, waiting, say);
      if (!current()) return undefined;
      this.rest("");
      return found;
    } catch (error) {
      if (current()) this.fail(error, mine.signal.aborted);
      return undefined;
    } finally {
      clearInterval(clock);
    }
  }

  fail(error, cancelled) {
    this.rest(cancelled ? "Cancelled." : sentence(error), cancelled ? "" : "error");
    this.again.hidden = !(cancelled || error instanceof Problem); // a file does not get better by itself
    announce(this.words.textContent);
  }

  /** Ended, with a last word. */
  rest(words, kind = "") {
    this.controller = undefined;
    this.line.removeAttribute("aria-busy");
    this.cancel.hidden = true;
    this.say(words, kind);
  }

  stop() { this.controller?.abort(); }

  /** Give up without a word: what it was for goes away. */
  drop() {
    const dropped = this.controller;
    this.controller = undefined;
    dropped?.abort();
  }

  say(words, kind = "") {
    this.again.hidden = true;
    this.words.textContent = words;
    this.line.dataset.kind = kind;
  }
}

/** What an error is told as: Problems speak for themselves, anything else is a fault of the page. */
export function sentence(error) {
  if (error instanceof Problem || error instanceof Malformed) return error.message;
  console.error(error);
  return "Something on this page went wrong. Load it again; if it stays, the browser's console says more.";
}

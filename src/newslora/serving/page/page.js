// The page: its views, the adapter that is asked, the key. Each view has a module of its own.

import { Problem, ask, onKeyWanted, setKey } from "./api.js";
import { announce, find, listed, make } from "./dom.js";
import { FileView } from "./file.js";
import { Live } from "./live.js";
import { Single } from "./single.js";
import { Task } from "./task.js";
import { Triage } from "./triage.js";

/** The adapters the server holds, the one chosen, and what the server does besides answering. */
class Adapters {
  constructor() {
    Object.assign(this, { known: [], feedback: true, explains: true, keeps: true });
    this.choice = find("adapter");
    this.level = find("abstain");
    this.task = new Task(find("adapter-status"));
    this.choice.addEventListener("change", () => this.#describe());
  }

  /** Ask which there are; the choice stays where it can. */
  async refresh(signal, waiting) {
    const { adapters } = await ask("GET", "/v1/adapters", { signal, waiting });
    await this.#features(signal);
    const before = this.choice.value || adapters.find((one) => one.default)?.name;
    this.known = adapters;
    this.choice.replaceChildren(...adapters.map((one) => make("option", { value: one.name }, one.name)));
    if (adapters.some((one) => one.name === before)) this.choice.value = before;
    this.choice.disabled = adapters.length === 0;
    this.#describe();
  }

  /** What the server does not do need not be offered; where it does not say, all is. */
  async #features(signal) {
    try {
      const { server } = await ask("GET", "/v1/status", { signal, background: true });
      Object.assign(this, { feedback: server.feedback, explains: server.explain_texts > 0, keeps: server.keep_uncertain > 0 });
    } catch (error) {
      if (signal?.aborted) throw error;
    }
  }

  load() {
    return this.task.run("Asking the server\u2026", async (signal, waiting) => {
      find("adapter-facts").textContent = "";
      await this.refresh(signal, waiting);
    }, () => this.load());
  }

  /** The chosen one as the server describes it, asked for first where nothing is known yet. */
  async adapter(signal, waiting) {
    if (!this.known.length) await this.refresh(signal, waiting);
    const found = this.known.find((one) => one.name === this.choice.value);
    if (!found) throw new Problem("The server holds no adapter. Load one, then try again.", 404);
    return found;
  }

  /** The adapter that gave an answer; asked for again where it was replaced since. */
  async named(answer, signal) {
    const that = () => this.known.find((one) => one.name === answer.adapter && one.version === answer.version);
    if (!that()) await this.refresh(signal);
    return that() ?? this.known.find((one) => one.name === answer.adapter) ?? this.adapter(signal);
  }

  /** The level below which rows stay undecided; null decides all. */
  abstain() { return this.level.value === "" ? null : Number(this.level.value); }

  #describe() {
    const one = this.known.find((each) => each.name === this.choice.value);
    const backbone = one?.backbone.startsWith("/") ? one.backbone.split("/").at(-1) : one?.backbone; // of a path, its end
    const labels = one && listed(one.labels.length > 8 ? [...one.labels.slice(0, 8), `${one.labels.length - 8} more`] : one.labels);
    const facts = one ? [`${backbone}, version ${one.version}: ${labels}`] : [];
    if (one?.warning) facts.push(one.warning);
    find("adapter-facts").textContent = facts.join(". ");
    this.level.disabled = one?.multi_label === true;
    this.level.title = one?.multi_label ? "An adapter of several labels a text does not abstain." : "";
  }
}

/** The form for a key: shown when the server asks for one; whoever waits goes on with it. */
function keyForm() {
  const form = find("key-form");
  const field = find("key");
  let waiting = [];
  let before = null; // what had the focus
  const settle = (how, value) => {
    form.hidden = true;
    before?.focus();
    for (const one of waiting.splice(0)) one[how](value);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim() === "") return field.focus();
    setKey(field.value.trim());
    field.value = "";
    settle("resolve");
  });
  find("key-cancel").addEventListener("click", () => settle("reject", new Problem("This server wants a key, and none was given.", 401)));
  onKeyWanted((words, signal) => new Promise((resolve, reject) => {
    find("key-words").textContent = words;
    if (form.hidden) before = document.activeElement;
    form.hidden = false;
    announce(words);
    if (!document.activeElement?.matches("input, textarea, select")) field.focus(); // who types is left alone
    waiting.push({ resolve, reject });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  }));
}

const VIEWS = ["headline", "file", "triage", "live"];

function start() {
  keyForm();
  const adapters = new Adapters();
  const file = new FileView(adapters);
  const single = new Single(adapters, (lines) => {
    file.take(`${lines.length} pasted lines`, lines);
    location.hash = "file";
  });
  const triage = new Triage(adapters);
  const live = new Live();
  const show = (name, moved) => {
    for (const view of VIEWS) {
      find(`view-${view}`).hidden = view !== name;
      const link = document.querySelector(`nav a[href="#${view}"]`);
      if (view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const title = find(`${name}-title`);
    document.title = `${title.textContent} \u00b7 newslora`;
    live.show(name === "live");
    if (name === "triage" && !triage.items.length) triage.load();
    if (!moved) return;
    scrollTo(0, 0);
    title.focus({ preventScroll: true });
  };
  const asked = () => VIEWS.find((view) => location.hash === `#${view}`); // none where a link leads inside a view
  addEventListener("hashchange", () => { if (asked()) show(asked(), true); });
  find("adapter").addEventListener("change", () => {
    single.again();
    if (!find("view-triage").hidden) triage.load();
    else triage.items = [];
  });
  find("abstain").addEventListener("change", () => single.again());
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault()); // never leave the page for a file
  adapters.load();
  show(asked() ?? VIEWS[0], false);
}

start();

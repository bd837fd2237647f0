// The page: its views, the adapter that is asked, the key. Each view has a module of its own.

import { Problem, ask, faultOf, hasKey, onKeyWanted, setKey } from "./api.js";
import { announce, find, listed, make, shortened } from "./dom.js";
import { takeDrops } from "./drop.js";
import { FileView } from "./file.js";
import { Live } from "./live.js";
import { Single } from "./single.js";
import { Task } from "./task.js";
import { Triage } from "./triage.js";

/** The adapters the server holds, the one chosen, and what the server does besides answering. */
class Adapters {
  constructor() {
    Object.assign(this, { known: [], feedback: true, explains: true, keeps: true, longest: undefined });
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
      const { feedback, longest_timeout: longest } = server;
      Object.assign(this, { feedback, explains: server.explain_texts > 0, keeps: server.keep_uncertain > 0, longest });
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
    const names = one?.labels.slice(0, 8).map((label) => shortened(label, 40)) ?? [];
    const labels = listed(one?.labels.length > 8 ? [...names, `${one.labels.length - 8} more`] : names);
    const facts = one ? [`${one.backbone}, version ${one.version}: ${labels}`] : [];
    if (one?.warning) facts.push(one.warning);
    find("adapter-facts").textContent = facts.join(". ");
    this.level.disabled = one?.multi_label === true;
    this.level.title = one?.multi_label ? "An adapter of several labels a text does not abstain." : "";
  }
}

const REFUSAL = 5000; // milliseconds after a key was given in which its refusal brings the user back to the field

/**
 * The form for a key: shown when the server asks for one, and whoever waits goes on with it; or brought up by its button, which is
 * there as soon as there is a key or the server has asked for one. `changed` is called when another key is used.
 */
function keyForm(changed) {
  const [form, field, cancel, button] = ["key-form", "key", "key-cancel", "key-change"].map(find);
  let waiting = [];
  let before = null; // what had the focus
  let tried = -Infinity; // when a key was last given
  let wanted = hasKey();
  const tell = (words) => {
    find("key-words").textContent = words;
    announce(words);
  };
  const open = (words) => {
    if (form.hidden) before = document.activeElement;
    form.hidden = false;
    button.hidden = true;
    cancel.textContent = waiting.length || !hasKey() ? "Go on without" : "Keep the old one";
    tell(words);
  };
  const close = () => {
    form.hidden = true;
    button.hidden = !wanted;
    button.textContent = hasKey() ? "Change key" : "Enter a key";
    before?.focus();
    return waiting.splice(0);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const letters = field.value.trim();
    const fault = faultOf(letters);
    field.focus();
    if (fault) return tell(fault);
    setKey(letters);
    field.value = "";
    tried = performance.now();
    wanted = true;
    for (const one of close()) one.resolve();
    changed();
  });
  cancel.addEventListener("click", () => {
    field.value = "";
    if (waiting.length) setKey(null); // the server does not take it
    for (const one of close()) one.reject(new Problem("This server wants a key, and none was given.", 401));
  });
  button.addEventListener("click", () => {
    open(hasKey() ? "Another key, in place of the one in use:" : "This server wants a key.");
    field.focus();
  });
  onKeyWanted((words, signal) => new Promise((resolve, reject) => {
    const one = { resolve, reject };
    waiting.push(one);
    wanted = true;
    open(words);
    const typing = document.activeElement?.matches("input, textarea, select") && performance.now() - tried > REFUSAL;
    if (!typing) field.focus(); // who types is left alone
    signal?.addEventListener("abort", () => {
      waiting = waiting.filter((other) => other !== one);
      reject(signal.reason);
    }, { once: true });
  }));
  close();
}

const KEYS = "newslora-single-keys";

/** Who dictates may turn off keys that do something by themselves: a word heard wrongly would press them. Kept by the browser. */
function singleKeys() {
  const box = find("single-keys");
  const show = () => document.documentElement.classList.toggle("no-keys", !box.checked); // digits count where they are shown
  try { box.checked = localStorage.getItem(KEYS) !== "off"; } catch { /* not kept, then */ }
  box.addEventListener("change", () => {
    show();
    try { localStorage.setItem(KEYS, box.checked ? "on" : "off"); } catch { /* as above */ }
  });
  show();
}

const VIEWS = ["headline", "file", "triage", "live"];

function start() {
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
  takeDrops((data) => {
    location.hash = "file";
    file.drop(data);
  });
  keyForm(() => { // whoever did not wait for it asks anew
    if (!adapters.task.running) adapters.load();
    single.recover();
    if (!find("view-triage").hidden && !triage.items.length && !triage.task.running) triage.load();
    live.recover();
  });
  singleKeys();
  adapters.load();
  show(asked() ?? VIEWS[0], false);
}

start();

// Asks the server. Whatever goes wrong is a Problem: a sentence to show, and what the caller may do about it.

const KEY = "newslora-key";
const PATIENCE = 120; // seconds: the longest Retry-After that is waited for
const RETRIES = 5; // of one request, each after the wait the server asked for

/** What went wrong, in a sentence. `status` is 0 where no answer came. */
export class Problem extends Error {
  constructor(message, status = 0, code = "", retryAfter = null) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

const NO_ANSWER = "The server cannot be reached. Is it still running, and this device connected?";
const SENTENCES = {
  400: "The server could not read the request.",
  401: "This server wants a key.", // of a key that was sent: REFUSED
  403: "This key may not do that.",
  404: "The server does not have that.",
  413: "This is more than the server takes at once.",
  422: "The server cannot use this request.",
  408: "The connection is too slow for the server.",
  429: "That was too many requests for now.",
  500: "The server failed at this request.",
  501: "This server cannot do that.",
  503: "The server is not ready: it is starting, stopping or has too much to do.",
  504: "The answer took longer than the server allows.",
};

const REFUSED = "The server does not know this key. It was mistyped or cut short, was revoked, or has run out.";

// A tab's own memory; where the browser refuses it, the key is kept until the page is left.
let held = null;
const key = () => {
  try { held ??= sessionStorage.getItem(KEY); } catch { /* kept above */ }
  return held !== null && faultOf(held) === "" ? held : null;
};

/** What keeps some letters from being a key, in a sentence; "" where nothing does. */
export function faultOf(letters) {
  const odd = letters.match(/[^\x21-\x7e]/u)?.[0];
  if (odd === undefined) return letters === "" ? "Type or paste the key first." : "";
  return `A key is made of plain letters, digits and signs; this one holds ${/[\s\p{C}]/u.test(odd) ? "a space or what cannot be seen" : `\u201c${odd}\u201d`}. Copy it anew.`;
}

/** Use a key from now on; null: none. */
export function setKey(value) {
  held = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch { /* kept above */ }
}

export const hasKey = () => key() !== null;

let keyWanted = () => Promise.reject(new Problem(SENTENCES[401], 401));
/** How to ask the user for a key: called with a sentence; resolves once there is one, rejects where there will be none. */
export function onKeyWanted(ask) { keyWanted = ask; }

/**
 * The server's answer as JSON. `waiting(seconds, problem)` is told while a wait the server asked for is kept, and 0 at its end; a question
 * in the `background` never brings up the form for a key.
 */
export async function ask(method, path, { body, signal, waiting, background } = {}) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const response = await answered(method, path, sent, "application/json", signal, waiting, background);
  try {
    return await response.json();
  } catch (error) {
    throw told(error, signal, "The server's answer could not be read.");
  }
}

/** Records out as JSON lines, the answers one by one as they come. */
export async function* stream(path, records, { signal, waiting } = {}) {
  const body = records.map((record) => `${JSON.stringify(record)}\n`).join("");
  const response = await answered("POST", path, body, "application/x-ndjson", signal, waiting);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (value ?? "")).split("\n");
      rest = done ? "" : lines.pop();
      for (const line of lines) if (line.trim()) yield record(line);
      if (done) return;
    }
  } catch (error) {
    throw told(error, signal, "The connection to the server broke off in the middle of its answer.");
  } finally {
    reader.cancel().catch(() => {}); // where the caller stopped early
  }
}

function record(line) {
  try {
    return JSON.parse(line);
  } catch {
    throw new Problem("The server's answer could not be read.", 500);
  }
}

async function answered(method, path, body, type, signal, waiting, background = false) {
  for (let tries = 0; ; tries++) {
    const sent = key();
    const response = await reached(method, path, body, type, signal, sent);
    if (response.ok) return response;
    const problem = await problemOf(response, signal);
    if (problem.status === 401 && sent !== key()) continue; // another one was given meanwhile
    if (problem.status === 401 && sent !== null) problem.message = REFUSED;
    const patient = problem.retryAfter !== null && problem.retryAfter <= PATIENCE && tries < RETRIES;
    if (problem.status === 401 && !background) await keyWanted(sent === null ? SENTENCES[401] : problem.message, signal);
    else if ((problem.status === 429 || problem.status === 503) && patient && waiting) {
      await wait(problem.retryAfter, signal, (left) => waiting(left, problem));
      waiting(0, problem);
    } else throw problem;
  }
}

async function reached(method, path, body, type, signal, sent) {
  const headers = { Accept: "application/json, application/x-ndjson" };
  if (body !== undefined) headers["Content-Type"] = type;
  if (sent !== null) headers.Authorization = `Bearer ${sent}`;
  try {
    return await fetch(path, { method, body, headers, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    throw told(error, signal, NO_ANSWER);
  }
}

/** A cancelled request stays an abort, another failure becomes the sentence. */
function told(error, signal, sentence) {
  return signal?.aborted || error instanceof Problem ? error : new Problem(sentence);
}

async function problemOf(response, signal) {
  let given = null;
  try {
    given = (await response.json())?.error;
  } catch (error) {
    if (signal?.aborted) throw error; // else: no JSON, as from a proxy in between
  }
  const lead = SENTENCES[response.status] ?? `The server answered with status ${response.status}.`;
  const wait = secondsAfter(response);
  let said = typeof given?.message === "string" ? given.message : "";
  if (wait !== null) said = said.replace(/\s*Try again in \d+ (s|seconds)\.$/, ""); // the page waits by itself, and counts
  return new Problem(said ? `${lead} ${said}` : lead, response.status, given?.code ?? "", wait);
}

/** Retry-After in seconds, given as such or as a date; null where absent. */
function secondsAfter(response) {
  const value = response.headers.get("Retry-After");
  if (value === null || value.trim() === "") return null;
  const seconds = Number.isNaN(Number(value)) ? (Date.parse(value) - Date.now()) / 1000 : Number(value);
  return Number.isNaN(seconds) ? null : Math.max(0, Math.ceil(seconds));
}

/** Wait some seconds, telling those left; an abort ends it at once. */
export async function wait(seconds, signal, tell = () => {}) {
  const end = performance.now() + seconds * 1000;
  for (let left = seconds; left > 0; left = (end - performance.now()) / 1000) {
    tell(Math.ceil(left));
    await new Promise((resume, stop) => {
      const timer = setTimeout(resume, Math.min(1000, left * 1000));
      signal?.addEventListener("abort", () => { clearTimeout(timer); stop(signal.reason); }, { once: true });
      if (signal?.aborted) stop(signal.reason);
    });
  }
}

// A file from the user's disk -> a table of rows: CSV, JSON lines or one text a line. In steps that let the page breathe.

import { breathe, size } from "./dom.js";
import { CsvReader, Malformed, separatorOf } from "./csv.js";

const LARGEST = 200e6; // bytes; the rows stay in the tab's memory
const MOST_ROWS = 1_000_000;
const SLICE = 12; // milliseconds of work between two breaths

// the names newslora's own reader knows (data/columns.py)
const TITLES = ["title", "headline"];
const BODIES = ["description", "text", "body", "content", "summary", "abstract", "article", "sentence", "news", "review"];
const LABELS = ["label", "labels", "class", "class index", "category", "section", "topic", "target", "class name"];
const KNOWN = [...TITLES, ...BODIES, ...LABELS];
const TOLD = /^\s*"?sep=([^"\r\n]?)"?[ \t]*(?:\r\n?|\n|$)/i; // what Excel says of its own separator
const SEPARATORS = { ",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars" };

/**
 * A table: {name, columns: names, rows: lists of cells, chosen: places of the text columns, header: whether the first row
 * named the columns (null where that cannot be asked), remarks: sentences}.
 */
export async function readFile(file, tell, signal) {
  if (file.size > LARGEST) {
    throw new Malformed(
      `${file.name} has ${size(file.size)}; this page takes files up to ${size(LARGEST)}. Larger ones: newslora predict.`,
    );
  }
  const text = await decoded(file, tell, signal);
  if (text.trim() === "") throw new Malformed(`${file.name} is empty: there is no row to classify.`);
  const kind = kindOf(file.name, text);
  const table = await { csv: readCsv, lines: readJsonLines, array: readJsonArray, text: readLines }[kind](text, signal);
  if (table.rows.length === 0) throw new Malformed(`${file.name} holds column names but no row to classify.`);
  if (table.rows.length > MOST_ROWS) {
    throw new Malformed(`${file.name} has more than ${MOST_ROWS.toLocaleString("en")} rows. So many: newslora predict.`);
  }
  return { name: file.name, ...table };
}

/** The texts of a table: its chosen columns, trimmed and joined by a space, as for training. */
export function textOf(table, row) {
  return table.chosen.map((place) => (row[place] ?? "").trim()).filter((part) => part !== "").join(" ");
}

/** Take a CSV's first row for column names, or for a row. */
export function withHeader(table, header) {
  const rows = table.header ? [table.columns, ...table.rows] : table.rows;
  return { ...table, ...shaped(rows, header) };
}

async function decoded(file, tell, signal) {
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  const begins = (...bytes) => bytes.every((byte, place) => start[place] === byte);
  if (begins(0x50, 0x4b) || begins(0xd0, 0xcf, 0x11, 0xe0)) { // .xlsx, .ods, .docx; .xls, .doc
    throw new Malformed(`${file.name} is a spreadsheet or a zip archive. Save it as CSV (UTF-8) and choose that file.`);
  }
  if (begins(0x25, 0x50, 0x44, 0x46) || begins(0x89, 0x50, 0x4e, 0x47) || begins(0xff, 0xd8, 0xff)) throw noText(file); // PDF, PNG, JPEG
  if (begins(0x50, 0x41, 0x52, 0x31) || begins(0x1f, 0x8b)) {
    throw new Malformed(`${file.name} is Parquet or packed. Give it to newslora predict, or save it as plain CSV.`);
  }
  const encoding = begins(0xff, 0xfe) ? "utf-16le" : begins(0xfe, 0xff) ? "utf-16be" : "utf-8";
  const decoder = new TextDecoder(encoding, { fatal: true });
  const reader = file.stream().getReader();
  const parts = [];
  try {
    for (let read = 0; ;) {
      const { done, value } = await reader.read();
      signal?.throwIfAborted();
      parts.push(decoder.decode(value, { stream: !done }));
      if (done) break;
      read += value.length;
      tell(`Reading ${file.name}: ${size(read)} of ${size(file.size)}.`);
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error.name === "NotReadableError" ? gone(file) : error;
    throw new Malformed(`${file.name} is not UTF-8 text. Save it again with that encoding ("CSV UTF-8").`);
  }
  const text = parts.join("");
  if (text.includes("\0")) throw noText(file);
  return text;
}

const noText = (file) => new Malformed(`${file.name} holds bytes that are no text. Choose a CSV, JSON lines or text file.`);

const gone = (file) => new Malformed(`${file.name} can no longer be read: it was moved or changed. Choose it again.`);

function kindOf(name, text) {
  const suffix = name.toLowerCase().split(".").at(-1);
  const first = text.trimStart()[0];
  if (["csv", "tsv"].includes(suffix)) return "csv";
  if (["json", "jsonl", "ndjson"].includes(suffix)) return first === "[" ? "array" : "lines";
  return first === "{" ? "lines" : "text";
}

/** Work through items in slices of time. */
async function inSlices(items, work, signal) {
  let since = performance.now();
  for (const [place, item] of items.entries()) {
    work(item, place);
    if ((place & 63) === 0 && performance.now() - since > SLICE) {
      await breathe();
      signal?.throwIfAborted();
      since = performance.now();
    }
  }
}

async function readCsv(text, signal) {
  const told = TOLD.exec(text);
  const separator = told ? told[1].trim() || "\t" : separatorOf(text.slice(0, 100_000));
  const reader = new CsvReader(separator);
  const start = told ? told[0].length : 0;
  const pieces = Array.from({ length: Math.ceil((text.length - start) / 16_384) }, (_, place) => start + place * 16_384);
  const rows = [];
  await inSlices(pieces, (at) => { for (const row of reader.push(text.slice(at, at + 16_384))) rows.push(row); }, signal);
  rows.push(...reader.end());
  const table = shaped(rows, isHeader(rows[0] ?? []));
  if (separator !== "," && table.columns.length > 1) table.remarks.unshift(`Its cells are separated by ${SEPARATORS[separator] ?? `\u201c${separator}\u201d`}.`);
  return table;
}

/**
 * Whether a first row names the columns. As for newslora's own reader (data/columns.py) it does, unless it is a row as AG News has
 * them; a lone cell does only by a name that is known, for a file of headlines alone seldom has one.
 */
function isHeader(cells) {
  if (cells.some((cell) => KNOWN.includes(folded(cell)))) return true;
  const numbers = cells.map((cell) => /^[0-9]+$/.test(cell.trim()));
  return cells.length > 1 && (cells.length !== 3 || !numbers[0] || numbers.every(Boolean));
}

function shaped(rows, header) {
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0);
  const columns = Array.from({ length: width }, (_, place) => (header && rows[0][place]) || `column ${place + 1}`);
  const body = header ? rows.slice(1) : rows;
  const ragged = body.filter((row) => row.length !== rows[0].length).length;
  const remarks = ragged ? [`${ragged === 1 ? "1 row has" : `${ragged.toLocaleString("en")} rows have`} more or fewer cells than the first; check the quotes there.`] : [];
  return { columns, rows: body, header, chosen: textColumns(columns, header, body), remarks };
}

/** As newslora's own reader: title and body by name; without names, all but the column of the shortest cells. */
function textColumns(columns, header, rows) {
  const names = columns.map(folded);
  const first = (known) => known.map((name) => names.indexOf(name)).find((place) => place >= 0);
  const named = [first(TITLES), first(BODIES)].filter((place) => place !== undefined);
  if (named.length) return named;
  const sample = rows.slice(0, 100);
  const letters = columns.map((_, place) => sample.reduce((sum, row) => sum + (row[place] ?? "").length, 0));
  if (header) return [letters.indexOf(Math.max(...letters))]; // names nobody knows: the longest texts
  const shortest = columns.length > 1 ? letters.indexOf(Math.min(...letters)) : -1;
  return columns.map((_, place) => place).filter((place) => place !== shortest);
}

const folded = (name) => name.trim().toLowerCase().replaceAll("_", " ");

async function readJsonLines(text, signal) {
  const records = [];
  await inSlices(text.split(/\r?\n/), (line, place) => {
    if (line.trim() === "") return;
    try {
      records.push(JSON.parse(line));
    } catch {
      throw new Malformed(`Line ${place + 1} is not JSON. Every line must be one record, as {"text": "..."}.`);
    }
  }, signal);
  return tableOf(records, signal);
}

async function readJsonArray(text, signal) {
  let records;
  try {
    records = JSON.parse(text);
  } catch {
    throw new Malformed("The file begins as a JSON list but is not one to its end. JSON lines, a record a line, work as well.");
  }
  return tableOf(records, signal);
}

async function tableOf(records, signal) {
  const columns = [];
  const places = new Map();
  const rows = [];
  await inSlices(records, (record, place) => {
    const fields = typeof record === "string" ? { text: record } : record;
    if (fields === null || typeof fields !== "object" || Array.isArray(fields)) {
      throw new Malformed(`Record ${place + 1} is neither a text nor an object of named fields, as {"text": "..."}.`);
    }
    const row = [];
    for (const [name, value] of Object.entries(fields)) {
      if (!places.has(name)) places.set(name, columns.push(name) - 1);
      row[places.get(name)] = typeof value === "string" ? value : value === null ? "" : JSON.stringify(value);
    }
    rows.push(Array.from(row, (cell) => cell ?? ""));
  }, signal);
  return { columns, rows, header: null, chosen: textColumns(columns, true, rows), remarks: [] };
}

async function readLines(text, signal) {
  const rows = [];
  await inSlices(text.split(/\r?\n/), (line) => { if (line.trim() !== "") rows.push([line]); }, signal);
  return { columns: ["text"], rows, header: null, chosen: [0], remarks: [] };
}

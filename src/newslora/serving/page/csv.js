// CSV as it comes: pieces of text -> rows of cells, and cells -> a line. Reads what Python's csv module reads (tests compare).

const QUOTE = 34, LF = 10, CR = 13;

/** A file that cannot be read, in a sentence. */
export class Malformed extends Error {}

export class CsvReader {
  #separator; #cell = ""; #row = []; #state = "start"; // start, plain, quoted, closed (just after a quote)
  #skip = false; #any = false; #rows = 0;

  constructor(separator = ",") { this.#separator = separator.charCodeAt(0); }

  /** The rows a piece of text completes. A piece may end anywhere, also inside a quoted cell. */
  push(text) {
    const found = [];
    let from = 0;
    const keep = (to) => { if (to > from) this.#cell += text.slice(from, to); from = to + 1; };
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (this.#state === "quoted") {
        if (code === QUOTE) { keep(at); this.#state = "closed"; }
        continue;
      }
      if (this.#skip) { // the second half of CR LF
        this.#skip = false;
        if (code === LF) { from = at + 1; continue; }
      }
      if (code === QUOTE && this.#state !== "plain") {
        if (this.#state === "closed") this.#cell += '"'; // two quotes inside a quoted cell are one
        this.#state = "quoted";
        this.#any = true;
        from = at + 1;
      } else if (code === this.#separator) {
        keep(at);
        this.#endCell();
      } else if (code === LF || code === CR) {
        keep(at);
        this.#endRow(found);
        this.#skip = code === CR;
      } else this.#state = "plain"; // a quote further on is a quote
    }
    keep(text.length);
    return found;
  }

  /** The last row, where the file ends without a line end. */
  end() {
    if (this.#state === "quoted") {
      throw new Malformed(
        `Row ${this.#rows + 1} opens a quote (") that is never closed, so the rest of the file cannot be told apart. ` +
        "Close or double that quote and choose the file again.",
      );
    }
    const found = [];
    this.#endRow(found);
    return found;
  }

  #endCell() {
    this.#row.push(this.#cell);
    this.#cell = "";
    this.#state = "start";
    this.#any = true;
  }

  #endRow(found) {
    const empty = !this.#any && this.#cell === "";
    this.#endCell();
    if (!empty) { found.push(this.#row); this.#rows += 1; } // blank lines are no rows
    this.#row = [];
    this.#any = false;
  }
}

/** The separator of a file, out of its first line: the likeliest of comma, semicolon, tab and bar. */
export function separatorOf(text) {
  const line = text.replace(/"(?:[^"]|"")*"/g, "").split(/[\r\n]/, 1)[0];
  const seen = [",", ";", "\t", "|"].map((mark) => [mark, line.split(mark).length]);
  return seen.reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

/** Cells as one line of CSV, CR LF at its end as RFC 4180 has it. */
export function csvLine(cells) {
  const quoted = (cell) => (/[",\r\n]/.test(cell) || cell !== cell.trim() ? `"${cell.replaceAll('"', '""')}"` : cell);
  const line = cells.map((cell) => quoted(cell === null || cell === undefined ? "" : String(cell))).join(",");
  return `${line === "" ? '""' : line}\r\n`;
}

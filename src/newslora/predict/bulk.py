"""A file (or lines of text) -> the same rows with predictions; bad rows come out as rows with an error."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from newslora.config import DataSettings
from newslora.data.columns import find_text_columns, other_columns
from newslora.data.lines import Meter, json_lines_remark
from newslora.data.outputs import refuse_overwriting
from newslora.data.readers import CELL_LIMIT, PACKED, RawRow, Table
from newslora.data.sources import open_table, parse_source, split_for
from newslora.errors import InterruptedRun, SettingsError, near
from newslora.predict.answers import Answers
from newslora.predict.chunks import CHUNK_CHARACTERS, Chunk, ahead, chunk_rows, chunks, finish
from newslora.predict.classifier import Classifier
from newslora.predict.partial import Partial, State
from newslora.predict.writers import OUTPUTS, Format, Writer, file_format, json_writer, tab_writer

BLOCK = 1 << 20  # bytes of a stream taken at a time, or fewer where no more are there


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows went in and how they came out; rows == predicted + abstained + failed."""

    rows: int
    predicted: int
    abstained: int  # left undecided, where that was asked for
    failed: int


def predict_source(
    classifier: Classifier,
    source: str,
    output: Path,
    settings: DataSettings,
    progress: Callable[[int, float | None], None] = lambda rows, share: None,
    answers: Answers | None = None,
    fresh: bool = False,
    stop: Callable[[], int | None] = lambda: None,
    note: Callable[[str], None] = lambda text: None,
) -> Counted:
    """Classify every row of a source into `output` (CSV, JSON lines or Parquet by its suffix), which appears when whole.

    Until then finished rows are kept in `OUTPUT.partial`. Stopped in whatever way and called again, it goes on behind them
    and ends with the same bytes. A column of the input whose name an added one takes is kept as `input_predicted` and the
    like.

    Args:
        classifier: a loaded run.
        source: as `data.source`; the test split of one that has splits.
        output: file to make.
        settings: for column names and header; the text columns default to those of the training, else to those found by name.
        progress: told the finished rows and the share of the source read (None where unknown): when it begins, with those of
            an earlier sitting, and after each chunk.
        answers: what to tell of each row; None: label and probability.
        fresh: forget what an earlier sitting left.
        stop: asked after each chunk; a signal's number ends the sitting.
        note: told of text in other columns than training had it, and of columns that are kept under another name.

    Raises:
        SettingsError: an output that cannot be written, or a level of abstention the run cannot tell.
        DataError: an unreadable source.
        RunError: an earlier sitting had other settings, rows or weights, or another process writes this output.
        MissingExtraError: abstaining needs the extra 'abstain'.
        StorageError: the disk refuses; finished rows stay.
        InterruptedRun: `stop` named a signal; finished rows stay.
    """
    kind, told = _suffix_of(output), answers or _plainly(classifier)
    refuse_overwriting([output], [source])
    table, text_columns = open_texts(source, settings, classifier.card.text_columns, note)
    kept_as = _kept_as(table, told, note)
    own = tuple(kept_as.get(name, name) for name in table.columns)
    types = {kept_as.get(name, name): found for name, found in table.types.items()}
    form = file_format(kind, own, told.columns(), classifier.card.label_separator, types)
    plan = _plan(classifier, table, text_columns, told, kind)
    with Partial.open(output, plan, fresh) as partial:
        progress(partial.state.rows, partial.state.share)
        if not partial.state.whole:
            _fill(partial, classifier, table, text_columns, told, kept_as, form, progress, stop)
        partial.publish(form.convert)
    return _outcome(partial.state)


def predict_lines(
    classifier: Classifier,
    stream: BinaryIO,
    output: IO[str],
    answers: Answers | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Counted:
    """One UTF-8 text a line -> one line `label TAB probability TAB text`; a line that cannot be used says why.

    Lines are answered as they come: those that are there together in one go, the last without waiting for the next. Where
    `answers` asks for more, each line is a JSON object, as in a .jsonl file. `note`: told where the texts look like JSON lines.
    """
    told = answers or _plainly(classifier)
    most = chunk_rows(told)
    made = (one for rows in _arriving(stream, note) for one in chunks(classifier, rows, ("text",), Meter(), most))
    return _print(classifier, made, ("text",), output, told, {})


def predict_stream(
    classifier: Classifier,
    stream: BinaryIO,
    output: Path,
    answers: Answers | None = None,
    fresh: bool = False,
    progress: Callable[[int, float | None], None] = lambda rows, share: None,
    note: Callable[[str], None] = lambda text: None,
) -> Counted:
    """One UTF-8 text a line -> `output`, as `predict_source` makes it of a file with the one column `text`.

    A stream cannot be read again, so nothing is kept of what is stopped: the file appears whole or not at all.

    Args:
        stream: read to its end.
        output, answers, note: as there.
        fresh: forget what an earlier sitting left, which read a file.
        progress: told the finished rows, at the beginning and after each chunk.

    Raises:
        SettingsError: an output that cannot be written, or is what the stream is read from.
        RunError: an earlier sitting left rows of a file, or another process writes this output.
        StorageError: the disk refuses.
    """
    kind = _suffix_of(output)
    if _is_read(stream, output):
        raise SettingsError(f"The output '{output}' is the input. Name another place for one of the two.")
    told = answers or _plainly(classifier)
    form = file_format(kind, ("text",), told.columns(), classifier.card.label_separator, {})
    rows = itertools.chain.from_iterable(_arriving(stream, note))
    with Partial.open(output, {"input": "standard input"}, fresh, goes_on=False) as partial:
        partial.add(form.head, partial.state)
        progress(0, None)
        # in this thread: one that waits for a line would keep Ctrl-C waiting too
        for chunk in chunks(classifier, rows, ("text",), Meter(), chunk_rows(told)):
            finished = finish(classifier, chunk, told, {})
            partial.add(form.encode(finished), _counted(partial.state, chunk, finished, told))
            progress(partial.state.rows, None)
        partial.commit(whole=True)
        partial.publish(form.convert)
    return _outcome(partial.state)


def print_source(
    classifier: Classifier,
    source: str,
    output: IO[str],
    settings: DataSettings,
    answers: Answers | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Counted:
    """Like `predict_source`, printed as `predict_lines` prints; it cannot be gone on with."""
    table, text_columns = open_texts(source, settings, classifier.card.text_columns, note)
    told = answers or _plainly(classifier)
    made = ahead(chunks(classifier, table.rows, text_columns, table.meter, chunk_rows(told)))
    return _print(classifier, made, text_columns, output, told, _kept_as(table, told, note))


def open_texts(
    source: str,
    settings: DataSettings,
    trained: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Table, tuple[str, ...]]:
    """A source (its test split where it has splits) -> its rows, and which columns hold the text.

    Args:
        source: as `data.source`.
        settings: for column names and header.
        trained: the text columns of the training, taken where all are there and `settings` names no others.
        note: told where the text is found in others.

    Raises:
        DataError: an unreadable source, no column of text, or a part of those that only the training knew.
    """
    parsed = parse_source(source)
    split = split_for(parsed, "test") or split_for(parsed, "train")
    table = open_table(parsed, split, settings.header)
    label = settings.label_column
    if label is None and not table.has_header and len(table.columns) >= 3:
        label = table.columns[0]  # AG News' own form: class, title, description
    found = find_text_columns(table.columns, settings.text_columns, table.has_header, label, f"'{source}'", trained)
    if settings.text_columns is None and (told := other_columns(found, trained)):
        note(told)
    return table, found


def _plainly(classifier: Classifier) -> Answers:
    """Label and probability alone."""
    return Answers(classifier.labels, multi_label=classifier.multi_label)


def _suffix_of(output: Path) -> str:
    """The suffix of an output that can be written."""
    suffix = next((one for one in OUTPUTS if output.name.lower().endswith(one)), None)
    if suffix is None:
        ending = "".join(output.suffixes[-2:]) if output.suffix.lower() in PACKED else output.suffix
        raise SettingsError(
            f"The output '{output}' ends in '{ending}'. Allowed: {', '.join(OUTPUTS)}.{near(ending, OUTPUTS)}"
        )
    if output.is_dir():
        raise SettingsError(f"The output '{output}' is a folder. Name a file in it.")
    return suffix


def _kept_as(table: Table, answers: Answers, note: Callable[[str], None]) -> dict[str, str]:
    """As `Answers.kept_as`; says so where it matters."""
    kept_as = answers.kept_as(table.columns)
    if moved := [f"'{name}' as '{kept_as[name]}'" for name in table.columns if name in kept_as]:
        note(f"The input has columns of these names too; kept: {', '.join(moved)}.")
    return kept_as


def _types(table: Table) -> list[str] | None:
    """Those that its columns keep, in words; None where all are text."""
    found = table.types.values()
    return [str(one) for one in found] if any(one is not None for one in found) else None


def _plan(
    classifier: Classifier, table: Table, text_columns: Sequence[str], answers: Answers, kind: str
) -> dict[str, Any]:
    """All that decides the output's bytes. The input by the hash of its content: a copy elsewhere is the same input."""
    return {
        "input": table.sha256,
        "header": table.has_header,
        "columns": table.columns,
        "text columns": text_columns,
        # an earlier version's sitting wrote text, and batches of other types do not follow on it
        "types": _types(table) if kind == ".parquet" else None,
        "output": kind,
        "rows a chunk": (chunk_rows(answers), CHUNK_CHARACTERS),
        **answers.record(),
        **classifier.identity(),
    }


def _fill(
    partial: Partial,
    classifier: Classifier,
    table: Table,
    text_columns: Sequence[str],
    answers: Answers,
    kept_as: Mapping[str, str],
    form: Format,
    progress: Callable[[int, float | None], None],
    stop: Callable[[], int | None],
) -> None:
    """Bring `partial` from its state to the source's end."""
    if not partial.state.size:
        partial.add(form.head, partial.state)
    rows = table.rows_behind(partial.state.rows, partial.state.end)
    for chunk in ahead(chunks(classifier, rows, text_columns, table.meter, chunk_rows(answers))):
        finished = finish(classifier, chunk, answers, kept_as)
        partial.add(form.encode(finished), _counted(partial.state, chunk, finished, answers))
        progress(partial.state.rows, chunk.share)
        if (number := stop()) is not None:
            partial.commit()
            raise InterruptedRun(
                f"Stopped after {partial.state.rows:,} rows, which are kept in {partial.folder}. Go on with the same "
                "command.",
                number,
            )
    partial.commit(whole=True)


def _counted(state: State, chunk: Chunk, finished: list[dict[str, Any]], answers: Answers) -> State:
    abstained = 0 if answers.abstain is None else sum(row["abstained"] is True for row in finished)
    return replace(
        state,
        rows=state.rows + len(finished),
        abstained=state.abstained + abstained,
        failed=state.failed + sum(row["error"] is not None for row in finished),
        end=chunk.rows[-1].end,
        share=chunk.share,
    )


def _print(
    classifier: Classifier,
    made: Iterable[Chunk],
    text_columns: tuple[str, ...],
    output: IO[str],
    answers: Answers,
    kept_as: Mapping[str, str],
) -> Counted:
    shown = tuple(kept_as.get(name, name) for name in text_columns)
    write: Writer = tab_writer(output, shown) if answers.plain else json_writer(output)
    state = State()
    for chunk in made:
        finished = finish(classifier, chunk, answers, kept_as)
        write(finished)
        state = _counted(state, chunk, finished, answers)
    return _outcome(state)


def _outcome(state: State) -> Counted:
    return Counted(state.rows, state.rows - state.abstained - state.failed, state.abstained, state.failed)


def _is_read(stream: BinaryIO, output: Path) -> bool:
    """Whether a stream comes from the file to be made, as in `predict RUN - -o FILE < FILE`."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), output.stat())
    except OSError:  # no file yet, or a stream that is none
        return False


def _arriving(stream: BinaryIO, note: Callable[[str], None]) -> Iterator[list[RawRow]]:
    """The lines of a stream as rows; each list holds those that are there without waiting."""
    number = itertools.count(1)
    for lines in _whole_lines(stream):
        rows = [_line_row(next(number), line) for line in lines]
        if rows[0].number == 1 and (remark := json_lines_remark(rows[0].fields["text"])):
            note(remark)
        yield rows


def _whole_lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Lines without their ends; of one over the limit, a little more than that is kept."""
    rest = b""
    while block := stream.read1(BLOCK):  # type: ignore[attr-defined]  # every buffered reader has it
        first, *others = block.split(b"\n")
        if len(rest) <= CELL_LIMIT:
            rest += first
        if others:
            yield [rest, *others[:-1]]
            rest = others[-1]
    if rest:
        yield [rest]


def _line_row(number: int, line: bytes) -> RawRow:
    if len(line) > CELL_LIMIT:
        shown = line[:200].decode("utf-8", "replace")
        return RawRow(number, {"text": shown}, f"a line of over {CELL_LIMIT:,} bytes: not an article")
    text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
    return RawRow(number, {"text": text.removesuffix("\r")})

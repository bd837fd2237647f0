"""Raw rows -> chunks with tokens, made ahead of the forward pass -> finished rows.

A chunk ends at a fixed number of rows or characters counted from its first row, so the same rows give the same chunks,
the same batches and the same bits wherever reading began.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from newslora.data.articles import usable_text
from newslora.data.batches import Rows
from newslora.data.lines import Meter
from newslora.data.readers import CELL_LIMIT, RawRow
from newslora.predict.answers import Answers
from newslora.predict.classifier import Classifier

CHUNK = 1024  # rows in memory at once; enough for batches of like length
EXPLAINED_CHUNK = 32  # where each is explained, which takes as long as dozens of answers: what is lost when stopped
CHUNK_CHARACTERS = 2_000_000  # but no more than this and one row
AHEAD = 2  # chunks waiting for the forward pass

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are computed together."""

    rows: list[RawRow]
    problems: list[str | None]  # why a row cannot be classified, if it cannot
    texts: list[str]  # of the others, in order
    tokens: Rows  # of those
    share: float | None  # of the source read up to here


def chunk_rows(answers: Answers) -> int:
    """Rows a chunk."""
    return CHUNK if answers.words is None else EXPLAINED_CHUNK


def chunks(
    classifier: Classifier, rows: Iterable[RawRow], text_columns: Sequence[str], meter: Meter, most: int = CHUNK
) -> Iterator[Chunk]:
    """All rows in order, tokenised, at most so many at a time."""
    for some in _cut(rows, most):
        checked = [_checked(row, text_columns) for row in some]
        texts = [text for text, problem in checked if problem is None]
        yield Chunk(some, [problem for _, problem in checked], texts, classifier.rows(texts), meter.share)


def finish(classifier: Classifier, chunk: Chunk, answers: Answers, kept_as: Mapping[str, str]) -> list[dict[str, Any]]:
    """The chunk's rows with their answers, or with the error that kept them out; `kept_as` as `Answers.kept_as`."""
    found = zip(classifier.predictions(chunk.tokens, answers.abstain), chunk.texts, strict=True)
    finished = []
    for row, problem in zip(chunk.rows, chunk.problems, strict=True):
        fields = {kept_as.get(name, name): value for name, value in row.fields.items()}
        told = answers.of(*next(found)) if problem is None else answers.of_failed(problem)
        finished.append(fields | told)
    return finished


def ahead(items: Iterator[_T], depth: int = AHEAD) -> Iterator[_T]:
    """The same items, made in a thread, at most `depth` before they are asked for; what that raises is raised here."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[_T]] = deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            thread.shutdown(wait=True, cancel_futures=True)


def _cut(rows: Iterable[RawRow], most: int) -> Iterator[list[RawRow]]:
    some: list[RawRow] = []
    characters = 0
    for row in rows:
        some.append(row)
        characters += sum(len(value) if isinstance(value, str) else len(str(value)) for value in row.fields.values())
        if len(some) == most or characters >= CHUNK_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


def _checked(row: RawRow, text_columns: Sequence[str]) -> tuple[str, str | None]:
    text, problem = usable_text(row, text_columns)
    if problem is None and len(text) > CELL_LIMIT:
        return "", f"a text of {len(text):,} characters, more than {CELL_LIMIT:,}: not an article"
    if problem is None and "\0" in text:
        return "", "a NUL character, which is no text: leave it out"  # as the server refuses it
    return text, problem

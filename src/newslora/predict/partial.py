"""An output that is not whole yet, kept so that a kill at any moment costs only the rows in hand.

    OUTPUT.partial/
        plan.json   everything that decides the output's bytes; written last of what a beginning needs
        rows        the output so far (of a Parquet file: an Arrow stream, which can be appended to)
        journal     a line a commit: how far the work is, and the CRC-32 of `rows` up to there

Rows reach the disk before the journal's line that counts them. Another sitting cuts both back to the last line that
fits, so no row is lost or doubled; and since rows are computed in chunks that begin at fixed rows, it goes on to the
same bytes. In the end `rows` takes the output's name, or is made into it.
"""

import contextlib
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from newslora import files
from newslora.errors import RunError, listed

FORMAT = 2  # raised also where this newslora makes other rows of the same input than earlier ones did
PLAN, ROWS, JOURNAL, MADE, LOCK = "plan.json", "rows", "journal", "made", ".lock"
NAMED = "format of the folder"  # in the plan
COMMIT_SECONDS = 1.0  # between commits: flushing to disk at every chunk would slow a fast machine
BLOCK = 1 << 20
FIELDS_SHOWN = 5  # that differ in one entry of a plan


@dataclass(frozen=True, slots=True)
class State:
    """How far an output is."""

    rows: int = 0
    abstained: int = 0
    failed: int = 0
    end: int = 0  # of the last row in its source, as RawRow.end
    share: float | None = None  # of the source that was read
    whole: bool = False  # every row is there
    size: int = 0  # bytes of `rows`
    crc: int = 0  # CRC-32 of them


class Partial:
    """The folder of an output in the making; `Partial.open` makes or continues one."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self.rows, self.journal = self.folder / ROWS, self.folder / JOURNAL
        self.state = State()
        self._committed = self.state
        self._when = time.monotonic()

    @classmethod
    @contextlib.contextmanager
    def open(cls, output: Path, plan: dict[str, Any], fresh: bool = False, goes_on: bool = True) -> Iterator["Partial"]:
        """Continue where an earlier sitting of the same plan stopped, else begin.

        Args:
            output: the file to be.
            plan: plain values of all that decides its bytes, by names a reader knows.
            fresh: whether to forget earlier sittings.
            goes_on: whether the input can be read again; if not, nothing is kept of a sitting that is not finished.

        Raises:
            RunError: another process is at it, or the earlier sitting had another plan.
            StorageError: the disk refuses.
        """
        partial = cls(output)
        taken = RunError(f"Another process is writing {output}. Wait for it, or stop it.")
        with files.locked(partial.folder / LOCK, output, taken):
            with files.disk_errors(output):
                partial._begin(json.loads(json.dumps(plan | {NAMED: FORMAT})), fresh, goes_on)
            try:
                yield partial
            except BaseException:
                if not goes_on:
                    partial._remove()
                raise

    def add(self, data: bytes, state: State) -> None:
        """Append the next rows; `state` counts them, all but their bytes."""
        with files.disk_errors(self.output):
            with self.rows.open("ab") as stream:
                append(stream, data)
            crc = zlib.crc32(data, self.state.crc)
            self.state = replace(state, size=self.state.size + len(data), crc=crc)
            if time.monotonic() - self._when >= COMMIT_SECONDS:
                self.commit()

    def commit(self, whole: bool = False) -> None:
        """See that what was added survives whatever happens next."""
        self.state = replace(self.state, whole=whole)
        if self.state == self._committed:
            return
        with files.disk_errors(self.output):
            files.flush_to_disk(self.rows)
            with self.journal.open("ab") as stream:
                append(stream, _line(self.state))
            files.flush_to_disk(self.journal)
        self._committed, self._when = self.state, time.monotonic()

    def publish(self, convert: Callable[[Path, Path], None] | None) -> None:
        """Give the whole output its name, and remove the folder.

        Args:
            convert: makes the output's bytes of those added; None: they are the same.
        """
        with files.disk_errors(self.output):
            made = self.rows
            if convert is not None:
                made = self.folder / MADE
                convert(self.rows, made)
                files.flush_to_disk(made)
            if made.exists():  # else it took its name just before an earlier sitting was killed
                os.replace(made, self.output)
                files.flush_to_disk(self.output.parent)
            self._remove()

    def _remove(self) -> None:
        self._clear()
        (self.folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file of someone else's stays
            self.folder.rmdir()

    def _begin(self, plan: dict[str, Any], fresh: bool, goes_on: bool) -> None:
        earlier = None if fresh else self._earlier_plan()
        if earlier is not None:
            self._check(earlier, plan)
        if earlier is not None and goes_on:
            self._recover()
        if earlier is None or not goes_on or not (self.rows.exists() or self.state.whole):
            self._clear()
            for path in (self.rows, self.journal):
                path.touch()
            files.write_json(self.folder / PLAN, plan)
        self._committed = self.state

    def _earlier_plan(self) -> dict[str, Any] | None:
        try:
            plan = files.read_json(self.folder / PLAN)
        except FileNotFoundError:
            return None
        except ValueError:
            plan = None
        if not isinstance(plan, dict):
            raise RunError(
                f"{self.folder / PLAN} is damaged. Begin again with --fresh (fresh=True), or remove {self.folder}."
            )
        return plan

    def _check(self, earlier: dict[str, Any], plan: dict[str, Any]) -> None:
        if (made := earlier.get(NAMED)) != plan[NAMED]:
            raise RunError(
                f"{self.folder} holds rows that another newslora wrote (format {made}; this one writes {plan[NAMED]}), which "
                "may differ from this one's. Begin again with --fresh (fresh=True), or go on with the newslora that began it."
            )
        differing = [name for name in (earlier | plan) if earlier.get(name) != plan.get(name)]
        if differing:
            told = [_difference(name, earlier.get(name), plan.get(name)) for name in differing[:3]]
            raise RunError(
                f"{self.folder} holds rows that would not fit those of this command: {'; '.join(told)}. Go on as it began, "
                "or begin again with --fresh (fresh=True)."
            )

    def _recover(self) -> None:
        """Cut rows and journal back to the last commit whose bytes are all there."""
        lines = self.journal.read_bytes().splitlines(keepends=True) if self.journal.exists() else []
        rows = self.rows if self.rows.exists() else self.output  # which they are, where the last step was taken
        kept = 0
        with rows.open("rb") if rows.exists() else io.BytesIO() as stream:
            for line in lines:
                state = _state(line)
                if state is None or _crc(stream, state.size - self.state.size, self.state.crc) != state.crc:
                    break
                self.state, kept = state, kept + len(line)
            more = stream.read(1)
        if rows is self.output:
            self.state = self.state if self.state.whole and not more else State()
            return
        self.journal.touch()
        os.truncate(self.rows, self.state.size)
        os.truncate(self.journal, kept)

    def _clear(self) -> None:
        """Remove the files of this module, the plan first: without it the others count for nothing."""
        for path in (
            self.folder / PLAN,
            *self.folder.glob(f".{PLAN}.*.tmp"),
            self.rows,
            self.journal,
            self.folder / MADE,
        ):
            path.unlink(missing_ok=True)


def append(stream: IO[bytes], data: bytes) -> None:
    """Write all of `data`. A function of its own, so that tests can break it off in the middle."""
    stream.write(data)


def _line(state: State) -> bytes:
    body = json.dumps(asdict(state)).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _state(line: bytes) -> State | None:
    """The state a line of the journal tells; None where the line is torn."""
    check, _, body = line.partition(b" ")
    if not body.endswith(b"\n") or check != b"%08x" % zlib.crc32(body[:-1]):
        return None
    return State(**json.loads(body))


def _crc(stream: IO[bytes], count: int, crc: int) -> int | None:
    """CRC-32 with the next `count` bytes; None where there are fewer."""
    while count:
        if not (block := stream.read(min(count, BLOCK))):
            return None
        crc, count = zlib.crc32(block, crc), count - len(block)
    return crc


def _difference(name: str, was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        fields = [field for field in (was | now) if was.get(field) != now.get(field)]
        return f"{name} differs in {listed(fields, FIELDS_SHOWN)}"
    return f"{name} was {_short(was)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."

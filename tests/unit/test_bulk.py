"""Every row comes out once, in order, with an answer or an error; and however often it is stopped, with the same bytes."""

import csv
import errno
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newslora import files
from newslora.config import DataSettings
from newslora.data.readers import RawRow
from newslora.data.sources import open_table, parse_source
from newslora.errors import DataError, InterruptedRun, RunError, SettingsError, StorageError
from newslora.predict import bulk, chunks, partial, writers
from newslora.predict.answers import Answers, Words
from newslora.predict.bulk import Counted, predict_lines, predict_source, print_source
from newslora.predict.classifier import Prediction
from newslora.predict.partial import Partial

ROWS = [{"id": str(number), "text": f"text {number} " + "x" * (number % 7)} for number in range(20)]
ROWS[4]["text"] = " "  # one that cannot be classified
OUTPUTS = (".csv", ".jsonl", ".parquet")


class Fake:
    """A classifier whose answer to a text depends on all texts computed with it, as rounding may."""

    labels = ("World", "Sports")
    multi_label = False
    card = SimpleNamespace(label_separator="|")

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.answered: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"adapter": self.version}

    def rows(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def predictions(self, texts: list[str], abstain: float | None = None) -> list[Prediction]:
        self.answered += texts
        together = hashlib.sha256("\n".join(texts).encode()).digest()
        found = []
        for text in texts:
            share = zlib.crc32(together + text.encode()) / 2**32
            likely = {"World": share, "Sports": 1 - share}
            best = max(likely, key=lambda label: likely[label])
            found.append(Prediction(None if abstain and share < 0.3 else best, likely[best], likely, (best,)))
        return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows, a commit after each."""
    monkeypatch.setattr(chunks, "CHUNK", 3)
    monkeypatch.setattr(partial, "COMMIT_SECONDS", 0.0)


def as_csv(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=8)
    return out.getvalue()


INPUTS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "in.csv": as_csv,
    "in.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "in.csv.zst": lambda rows: zstandard.compress(as_csv(rows)),
    "in.jsonl": as_lines,
    "in.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "in.jsonl.zst": lambda rows: zstandard.compress(as_lines(rows)),
    "in.json": lambda rows: json.dumps(rows).encode(),
    "in.parquet": as_parquet,
}


def given_file(folder: Path, name: str, rows: list[dict[str, str]] = ROWS) -> Path:
    path = folder / name
    path.write_bytes(INPUTS[name](rows))
    return path


def run(source: Path, output: Path, **options: Any) -> Counted:
    return predict_source(options.pop("classifier", Fake()), str(source), output, DataSettings(), **options)


def found(path: Path) -> list[dict[str, Any]]:
    """The rows of an output, empty cells as None, numbers as numbers."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(stream)]
    return [row | {"probability": row["probability"] and float(row["probability"])} for row in rows]


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_every_format_in_and_out_gives_every_row_once_in_order(name: str, suffix: str, tmp_path: Path) -> None:
    output = tmp_path / f"out{suffix}"
    classifier = Fake()
    counted = run(given_file(tmp_path, name), output, classifier=classifier)
    assert counted == Counted(20, 19, 0, 1)
    rows = found(output)
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert rows[4]["error"] == "empty text"
    assert rows[4]["predicted"] is None
    expected = Fake()
    texts = [ROWS[place]["text"].strip() for place in range(20) if place != 4]
    answers = [one for some in ([0, 1, 2], [3, 4], [5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16], [17, 18])
               for one in expected.predictions([texts[place] for place in some])]  # fmt: skip
    good = [row for row in rows if row["error"] is None]
    assert [row["predicted"] for row in good] == [one.label for one in answers]
    assert [row["probability"] for row in good] == [round(one.probability, 6) for one in answers]
    assert classifier.answered == texts
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == sorted([name, output.name])


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.parquet"])
def test_columns_without_rows_come_out_as_columns_without_rows(name: str, suffix: str, tmp_path: Path) -> None:
    source, output = given_file(tmp_path, name), tmp_path / f"out{suffix}"
    if name.endswith(".parquet"):
        pq.write_table(pq.read_table(source).slice(0, 0), source)
    else:
        source.write_bytes(b"id,text\n" if name == "in.csv" else gzip.compress(b"id,text\n"))
    assert run(source, output) == Counted(0, 0, 0, 0)
    columns = ["id", "text", "predicted", "probability", "error"]
    if suffix == ".parquet":
        assert pq.read_table(output).schema.names == columns
    else:
        assert output.read_bytes() == ((",".join(columns) + "\r\n").encode() if suffix == ".csv" else b"")
    printed = io.StringIO()
    assert print_source(Fake(), str(source), printed, DataSettings()).rows == 0
    assert printed.getvalue() == ""


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_a_file_with_nothing_in_it_is_refused_without_a_word_of_labels(name: str, suffix: str, tmp_path: Path) -> None:
    source, output = tmp_path / name, tmp_path / f"out{suffix}"
    source.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name} is empty: nothing in it names a column\. Make or copy it again"):
        run(source, output)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [name]


def test_no_line_on_standard_input_is_no_line_out() -> None:
    printed = io.StringIO()
    assert predict_lines(Fake(), io.BytesIO(b""), printed) == Counted(0, 0, 0, 0)
    assert printed.getvalue() == ""


def test_json_lines_are_lines_to_every_reader(tmp_path: Path) -> None:
    rows = [{"text": "one\x85two\u2028three\u2029four"}] * 2
    output, printed = tmp_path / "out.jsonl", io.StringIO()
    source = given_file(tmp_path, "in.jsonl", rows)
    run(source, output)
    print_source(Fake(), str(source), printed, DataSettings(), Answers(Fake.labels, top_k=1))
    for text in (output.read_text(encoding="utf-8"), printed.getvalue()):
        assert [json.loads(line)["text"] for line in text.splitlines()] == [row["text"] for row in rows]


def test_counts_tell_what_was_left_undecided(tmp_path: Path) -> None:
    # a column of the input that is named like one of ours is no answer
    rows = [row | {"abstained": "true"} for row in ROWS]
    source = given_file(tmp_path, "in.csv", rows)
    assert run(source, tmp_path / "plain.jsonl") == Counted(20, 19, 0, 1)
    counted = run(source, tmp_path / "out.jsonl", answers=Answers(Fake.labels, abstain=0.9))
    lines = found(tmp_path / "out.jsonl")
    assert counted.abstained == sum(line["abstained"] is True for line in lines) > 0
    assert counted.rows == counted.predicted + counted.abstained + counted.failed == 20


def letters(text: str, label: str, many: int) -> list[tuple[str, float]]:
    """A stand-in for an explanation: the text's words, the label's initial first."""
    return [(word, float(-place)) for place, word in enumerate([label[0], *text.split()])][:many]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_words_that_decided_are_told_of_each_row(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "EXPLAINED_CHUNK", 2)
    output = tmp_path / f"out{suffix}"
    classifier = Fake()
    answers = Answers(Fake.labels, abstain=0.9, words=Words(2, letters))
    with pytest.raises(InterruptedRun):  # stopped after a chunk, whose size is that of explained rows
        run(given_file(tmp_path, "in.csv"), output, classifier=classifier, answers=answers, stop=lambda: 2)
    assert len(classifier.answered) == 2
    counted = run(tmp_path / "in.csv", output, answers=answers)
    assert counted.abstained > 0
    rows = found(output)
    for row, given_row in zip(rows, ROWS, strict=True):
        told = json.loads(row["words"]) if suffix == ".csv" and row["words"] else row["words"]
        if row["error"]:
            assert told is None
            continue
        initial, word = told
        assert word == {"word": given_row["text"].split()[0], "score": -1.0}
        assert initial["word"] in "WS"  # of the likeliest label where the row was left undecided
        assert row["predicted"] is None or initial["word"] == row["predicted"][0]


def test_how_many_words_belongs_to_the_plan(tmp_path: Path) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    with pytest.raises(InterruptedRun):
        run(source, output, answers=Answers(Fake.labels, words=Words(2, letters)), stop=lambda: 2)
    with pytest.raises(RunError):
        run(source, output, answers=Answers(Fake.labels, words=Words(3, letters)))


class Killed(BaseException):
    """What a process feels of kill -9: nothing after it happens."""


class Machine:
    """The operations that change the disk, counted; the process dies at one of them, and what was not flushed may be lost."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, dies_at: int | None, flushed: dict[Path, int] | None = None
    ) -> None:
        self.left, self.count, self.dead = dies_at, 0, False
        self.flushed = {} if flushed is None else flushed  # file -> bytes that are surely on disk
        for place, name in (
            (files, "flush_to_disk"), (os, "replace"), (os, "truncate"), (Path, "unlink"), (Path, "touch"),
            (Path, "mkdir"), (Path, "rmdir"), (partial, "append"),
        ):  # fmt: skip
            monkeypatch.setattr(place, name, self.counted(name, getattr(place, name)))

    def counted(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(first: Any, *rest: Any, **named: Any) -> Any:
            if self.dead:
                raise Killed
            self.count += 1
            if self.left is not None and self.count > self.left:
                self.dead = True
                if name == "append":
                    operation(first, rest[0][: len(rest[0]) // 2])
                raise Killed
            if name == "replace":  # no name for bytes that are not surely on disk
                assert self.flushed[Path(first)] == Path(first).stat().st_size
            result = operation(first, *rest, **named)
            if name == "flush_to_disk" and first.is_file():
                self.flushed[first] = first.stat().st_size
            return result

        return wrapped

    def lose_power(self, folder: Path, rng: random.Random) -> None:
        """Bytes written but not flushed are cut off or garbled."""
        for path in (folder / partial.ROWS, folder / partial.JOURNAL):
            if not path.exists():
                continue
            sure, content = self.flushed.get(path, 0), path.read_bytes()
            tail = content[sure : rng.randint(min(sure, len(content)), len(content))]
            path.write_bytes(content[:sure] + (tail if rng.random() < 0.5 else rng.randbytes(len(tail))))


def sitting(
    monkeypatch: pytest.MonkeyPatch, source: Path, output: Path, dies_at: int | None, flushed: dict[Path, int]
) -> tuple[Machine, bool]:
    """One process: whether it lived to the end."""
    with monkeypatch.context() as patch:
        machine = Machine(patch, dies_at, flushed)
        try:
            run(source, output)
        except Killed:
            return machine, False
        return machine, True


@pytest.mark.parametrize("seconds", [0.0, 1e9])  # between commits: at every chunk, and only when whole
@pytest.mark.parametrize(
    ("name", "suffix"), [("in.csv.gz", ".csv"), ("in.jsonl", ".jsonl"), ("in.parquet", ".parquet")]
)
def test_killed_at_any_operation_it_ends_with_the_same_bytes(
    name: str, suffix: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each operation on the disk in turn, in half of the cases with the power gone too, and then once more."""
    monkeypatch.setattr(partial, "COMMIT_SECONDS", seconds)
    source, rng = given_file(tmp_path, name), random.Random(5)
    unbroken = tmp_path / f"unbroken{suffix}"
    machine, alive = sitting(monkeypatch, source, unbroken, None, {})
    assert alive
    operations = machine.count
    assert operations > (40 if seconds == 0 else 10)
    for dies_at in range(operations):
        output, flushed = tmp_path / f"out{suffix}", dict[Path, int]()
        for moment in (dies_at, rng.randrange(operations)):
            machine, alive = sitting(monkeypatch, source, output, moment, flushed)
            if not alive and rng.random() < 0.5:
                machine.lose_power(output.with_name(output.name + ".partial"), rng)
        counted = run(source, output)
        assert counted == Counted(20, 19, 0, 1)
        assert output.read_bytes() == unbroken.read_bytes(), dies_at
        left = {path.name for path in tmp_path.iterdir()} - {"cache"}
        assert left == {name, unbroken.name, output.name}
        output.unlink()


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("suffix", OUTPUTS)
def test_a_commit_outlives_a_power_cut(
    suffix: str, torn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power goes in the middle of a commit, twice, and all that was not flushed is lost, or garbled."""
    source, output, write = given_file(tmp_path, "in.csv"), tmp_path / f"out{suffix}", partial.append

    def die_in_the_third_commit(machine: Machine, told: list[int]) -> None:
        def append(stream: Any, data: bytes) -> None:
            if Path(stream.name).name == partial.JOURNAL and len(told) == 3:
                machine.dead = True
                write(stream, data[:20])
                raise Killed
            write(stream, data)

        partial.append = append
        run(source, output, progress=lambda rows, share: told.append(rows))

    for done in (0, 6):
        told: list[int] = []
        with monkeypatch.context() as patch:
            machine = Machine(patch, None)
            with pytest.raises(Killed):
                die_in_the_third_commit(machine, told)
        assert told == [done, done + 3, done + 6]
        folder = output.with_name(output.name + ".partial")
        for path in (folder / partial.ROWS, folder / partial.JOURNAL):
            content = path.read_bytes()
            sure = machine.flushed.get(path, 0)
            path.write_bytes(content[:sure] + (b"?" * (len(content) - sure) if torn else b""))
    classifier = Fake()
    assert run(source, output, classifier=classifier).rows == 20
    assert classifier.answered == [row["text"].strip() for row in ROWS[12:]]


def test_killed_after_the_output_got_its_name_it_only_tidies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    for more in (b"", b"?"):  # and an output that somebody wrote to since then is made again
        with monkeypatch.context() as patch:
            patch.setattr(Partial, "_clear", lambda self: (_ for _ in ()).throw(Killed()) if output.exists() else None)
            with pytest.raises(Killed):
                run(source, output)
        whole = output.read_bytes()
        output.write_bytes(whole + more)
        classifier = Fake()
        assert run(source, output, classifier=classifier) == Counted(20, 19, 0, 1)
        assert bool(classifier.answered) is bool(more)
        assert output.read_bytes() == whole
        assert not list(tmp_path.glob("*.partial"))
        output.unlink()


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_what_was_committed_is_not_computed_again(suffix: str, tmp_path: Path) -> None:
    source, output = given_file(tmp_path, "in.jsonl"), tmp_path / f"out{suffix}"
    told: list[int] = []
    with pytest.raises(InterruptedRun, match=r"Stopped after 9 rows.*Go on with the same command") as caught:
        run(source, output, progress=lambda rows, share: told.append(rows), stop=lambda: 15 if told[-1] == 9 else None)
    assert caught.value.exit_code == 143
    assert told == [0, 3, 6, 9]
    assert not output.exists()
    classifier, shares = Fake(), []
    run(source, output, classifier=classifier, progress=lambda rows, share: shares.append(share))
    assert classifier.answered == [row["text"].strip() for row in ROWS[9:]]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_partial_files_cost_rows_not_rightness(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever byte of the rows or the journal is changed, cut or added: the same bytes in the end."""
    folder = tmp_path_factory.mktemp("damaged")
    source, output = given_file(folder, "in.jsonl"), folder / "out.jsonl"
    run(source, folder / "unbroken.jsonl")
    chunks_done: list[int] = []
    with pytest.raises(InterruptedRun):
        run(
            source,
            output,
            progress=lambda rows, share: chunks_done.append(rows),
            stop=lambda: 2 if chunks_done[-1] > 12 else None,
        )
    path = output.with_name("out.jsonl.partial") / data.draw(st.sampled_from([partial.ROWS, partial.JOURNAL]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
    if kind == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=5))
    path.unlink()
    if kind != "remove":
        path.write_bytes(content)
    assert run(source, output) == Counted(20, 19, 0, 1)
    assert output.read_bytes() == (folder / "unbroken.jsonl").read_bytes()
    shutil.rmtree(folder)


def stopped(source: Path, output: Path, **options: Any) -> None:
    with pytest.raises(InterruptedRun):
        run(source, output, stop=lambda: 2, **options)


def test_another_command_is_refused_with_the_difference_and_fresh_begins_again(tmp_path: Path) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    stopped(source, output)
    with pytest.raises(RunError, match=r"adapter was 1 and is 2\. Go on as it began, or begin again with --fresh"):
        run(source, output, classifier=Fake("2"))
    with pytest.raises(RunError, match="top_k was None and is 2"):
        run(source, output, answers=Answers(Fake.labels, top_k=2))
    content = source.read_bytes()
    source.write_bytes(content.replace(b"text 7", b"text 8"))
    with pytest.raises(RunError, match=r"input was [0-9a-f]{12}\.\.\. and is "):
        run(source, output)
    moved = tmp_path / "moved.csv"  # the same rows elsewhere
    moved.write_bytes(content)
    run(moved, output)
    assert len(found(output)) == 20
    stopped(moved, output)
    run(moved, tmp_path / "other.csv", classifier=Fake("2"))
    run(moved, output, classifier=Fake("2"), fresh=True)
    assert output.read_bytes() == (tmp_path / "other.csv").read_bytes()


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    stopped(source, output)
    for content in ("{", "[]"):
        (tmp_path / "out.csv.partial" / partial.PLAN).write_text(content)
        with pytest.raises(RunError, match=r"plan\.json is damaged\. Begin again with --fresh"):
            run(source, output)
    assert run(source, output, fresh=True).rows == 20


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    from filelock import FileLock

    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    (tmp_path / "out.csv.partial").mkdir()
    with FileLock(tmp_path / "out.csv.partial" / partial.LOCK), pytest.raises(RunError, match="Another process"):
        run(source, output)
    assert run(source, output).rows == 20


@pytest.mark.parametrize("step", ["append", "flush_to_disk", "replace"])
def test_a_full_disk_keeps_what_was_finished(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    run(source, tmp_path / "unbroken.csv")
    place: Any = {"append": partial, "flush_to_disk": files, "replace": os}[step]
    operation, count = getattr(place, step), iter(range(1000))

    def refuse(first: Any, *rest: Any) -> None:
        if next(count) == (1 if step == "replace" else 10):  # a replace is the plan's, the second the output's
            if step == "append":
                operation(first, rest[0][:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        operation(first, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(place, step, refuse)
        with pytest.raises(StorageError, match=r"No space left on device.*nothing finished before was lost"):
            run(source, output)
    classifier = Fake()
    assert run(source, output, classifier=classifier).rows == 20
    assert len(classifier.answered) <= (0 if step == "replace" else 11)
    assert output.read_bytes() == (tmp_path / "unbroken.csv").read_bytes()


def test_an_output_that_cannot_be_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    source = given_file(tmp_path, "in.csv")
    (tmp_path / "folder.csv").mkdir()
    for output, sentence in (("in.csv", "is the input"), ("folder.csv", "is a folder"), ("out.cvs", "Did you mean")):
        with pytest.raises(SettingsError, match=sentence):
            run(source, tmp_path / output)
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"

    def grow(rows: int, share: float | None) -> None:
        with source.open("ab") as stream:
            stream.write(b"20,more\r\n")

    with pytest.raises(DataError, match="changed while it was read"):
        run(source, output, progress=grow)
    assert not output.exists()


def test_bad_rows_come_out_with_their_error_and_counts_reconcile(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(
        b"id,text\n1,fine\n2,nul\x00here\n3,K\xfcche\n4\n5,a,b\n6," + b"x" * 10_000_001 + b'\n7,\n8,"open\n9,last\n'
    )
    for suffix in OUTPUTS:
        counted = run(source, tmp_path / f"out{suffix}")
        rows = found(tmp_path / f"out{suffix}")
        assert counted == Counted(9, 3, 0, 6)
        wanted = [None, None, "broken encoding", "ragged", "ragged", "not readable", "empty text", "not readable", None]
        for row, problem in zip(rows, wanted, strict=True):
            assert row["error"] is None if problem is None else row["error"].startswith(problem)
        assert rows[2]["text"] == "K\\udcfcche" if suffix != ".jsonl" else "K\udcfcche"


def test_a_text_longer_than_any_article_is_an_error_in_every_format(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(as_lines([{"text": "short"}, {"text": "y" * 10_000_001}]))
    assert run(source, tmp_path / "out.jsonl") == Counted(2, 1, 0, 1)
    assert "10,000,001 characters" in found(tmp_path / "out.jsonl")[1]["error"]


NASTY = {
    ".csv": [
        b"1,fine\n", b"\n", b"2,\n", b"3\n", b'4,"a\nb"\n', b'5,"open\n', b"6,\x00\n", b"7,\xff\n", b"8,a,b\r\n",
        b"\xed\xa0\x80,x\n", '9,"é""🙂"\n'.encode(), b"10,a\rb\n", b"\xef\xbb\xbf,bom\n",
    ],
    ".jsonl": [
        b'{"text": "fine"}\n', b"\n", b'{"text": ""}\r\n', b"{}\n", b"[1]\n", b"no json\n", b'{"text": "\xff"}\n',
        b'{"text": 3}\r',
        b'{"text": "\\ud800"}\n', '{"text": "é🙂"}\n'.encode(), b'{"text": "\x00"}\n', b'\xef\xbb\xbf{"text": "bom"}\n',
    ],
}  # fmt: skip
FIRST = {".csv": b"id,text\n0,first\n", ".jsonl": b'{"id": "0", "text": "first"}\n'}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), suffix=st.sampled_from(list(NASTY)), bom=st.booleans(), packed=st.booleans())
def test_any_file_counts_every_row_and_goes_on_anywhere(
    data: st.DataObject, suffix: str, bom: bool, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("nasty")
    lines = data.draw(st.lists(st.sampled_from(NASTY[suffix]), max_size=25))
    content = b"\xef\xbb\xbf" * bom + FIRST[suffix] + b"".join(lines)
    source = folder / f"in{suffix}{'.gz' if packed else ''}"
    source.write_bytes(gzip.compress(content) if packed else content)
    table = open_table(parse_source(str(source)), None)
    rows = list(table.rows)
    assert rows[0] == RawRow(1, {"id": "0", "text": "first"})
    for row in rows:
        assert list(table.rows_behind(row.number, row.end)) == rows[row.number :]
    counted = run(source, folder / "out.jsonl")
    assert counted.rows == len(rows) == counted.predicted + counted.failed == len(found(folder / "out.jsonl"))
    calls, cut = iter(range(100)), data.draw(st.integers(0, 9))
    try:
        run(source, folder / "cut.jsonl", stop=lambda: 2 if next(calls) == cut else None)
    except InterruptedRun:
        assert run(source, folder / "cut.jsonl") == counted
    assert (folder / "cut.jsonl").read_bytes() == (folder / "out.jsonl").read_bytes()
    shutil.rmtree(folder)


def test_a_chunk_ends_at_a_number_of_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 100)
    rows = [RawRow(number, {"text": "x" * length}) for number, length in enumerate([60, 60, 1, 1, 1, 1, 500, 1], 1)]
    assert [[row.number for row in some] for some in chunks._cut(rows, chunks.CHUNK)] == [
        [1, 2],
        [3, 4, 5],
        [6, 7],
        [8],
    ]


def test_parquet_row_groups_are_large_though_chunks_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = given_file(tmp_path, "in.csv")
    run(source, tmp_path / "one.parquet")
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    monkeypatch.setattr(writers, "GROUP_ROWS", 7)
    run(source, tmp_path / "more.parquet")
    file = pq.ParquetFile(tmp_path / "more.parquet")
    assert [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)] == [9, 9, 2]
    assert file.read().equals(pq.read_table(tmp_path / "one.parquet"))


def test_ahead_keeps_order_stays_in_bounds_and_passes_errors_on() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number
        raise DataError("ours")

    taken = []

    def take() -> None:
        for item in chunks.ahead(items(), depth=3):
            taken.append(item)
            assert len(made) <= len(taken) + 3

    with pytest.raises(DataError, match="ours"):
        take()
    assert taken == list(range(10))
    before = threading.active_count()
    made.clear()
    for item in chunks.ahead(items(), depth=3):
        if item == 2:
            break
    assert threading.active_count() == before
    assert len(made) <= 6
    names = set(chunks.ahead(threading.current_thread().name for _ in range(2)))
    assert threading.current_thread().name not in names


def test_a_line_is_answered_before_the_next_one_comes() -> None:
    reading, writing = os.pipe()
    came = threading.Event()

    class Output(io.StringIO):
        def flush(self) -> None:
            came.set()

    output, counted = Output(), []
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        thread = threading.Thread(target=lambda: counted.append(predict_lines(Fake(), stream, output)))
        thread.start()
        for number in range(5):
            came.clear()
            pipe.write(b"text %d\r\nbroken \xff\n" % number)
            assert came.wait(20)
            assert output.getvalue().count("\n") == 2 * number + 2
        pipe.write(b"no newline at the end")
        pipe.close()
        thread.join(20)
    assert counted == [Counted(11, 6, 0, 5)]
    last = output.getvalue().splitlines()[-1]
    assert last.endswith("\tno newline at the end")


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CELL_LIMIT", 100)
    monkeypatch.setattr(bulk, "BLOCK", 64)
    stream = io.BytesIO(b"\xef\xbb\xbfone\n" + b"x" * 5_000 + b"\ntwo\n" + b"y" * 101)
    kept = [len(line) for lines in bulk._whole_lines(io.BytesIO(stream.getvalue())) for line in lines]
    assert max(kept) <= 100 + 64
    output = io.StringIO()
    assert predict_lines(Fake(), stream, output) == Counted(4, 2, 0, 2)
    lines = output.getvalue().splitlines()
    assert lines[0].endswith("\tone")
    assert lines[1].endswith("(a line of over 100 bytes: not an article)")
    assert lines[2].endswith("\ttwo")


def test_a_file_on_screen_is_the_same_rows(tmp_path: Path) -> None:
    output = io.StringIO()
    assert print_source(Fake(), str(given_file(tmp_path, "in.csv")), output, DataSettings()) == Counted(20, 19, 0, 1)
    lines = output.getvalue().splitlines()
    assert [line.split("\t")[2] for line in lines] == [row["text"].strip() for row in ROWS]
    assert lines[4] == "-\t-\t\t(empty text)"

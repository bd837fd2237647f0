"""However often bulk prediction is stopped, killed or refused by the disk, it ends with the bytes of an unbroken run."""

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from bulk_parts import OUTPUTS, ROWS, Fake, found, given_file, run
from bulk_parts import small as small  # a fixture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newslora import files
from newslora.config import DataSettings
from newslora.errors import DataError, InterruptedRun, RunError, SettingsError, StorageError
from newslora.predict import bulk, chunks, partial
from newslora.predict.answers import Answers
from newslora.predict.bulk import Counted
from newslora.predict.partial import Partial


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


def test_an_export_in_the_runs_place_is_refused_with_what_differs(tmp_path: Path) -> None:
    class WithCard(Fake):
        card_record: ClassVar[dict[str, Any]] = {"backbone": "minilm", "labels": ["World", "Sports"], "max_length": 64}

        def identity(self) -> dict[str, Any]:
            return {"adapter card": self.card_record}

    class Exported(WithCard):
        card_record: ClassVar[dict[str, Any]] = WithCard.card_record | {"backbone": "exports/int8", "export": "int8"}

    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    stopped(source, output, classifier=WithCard())
    with pytest.raises(RunError, match=r"command: adapter card differs in backbone, export\. Go on as it began"):
        run(source, output, classifier=Exported())


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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"answers": Answers(Fake.labels, abstain=0.9)}, "abstain was None and is 0.9"),
        ({"answers": Answers(Fake.labels, probabilities=True)}, "probabilities was False and is True"),
        ({"answers": Answers(("Sports", "World"))}, "labels was"),
        ({"settings": DataSettings(text_columns=("id",))}, "text columns was"),
        ({"settings": DataSettings(header=False)}, "header was True and is False"),
        ({"CHUNK": 4}, "rows a chunk was"),
        ({"CHUNK_CHARACTERS": 30}, "rows a chunk was"),
    ],
    ids=lambda value: value.partition(" was")[0] if isinstance(value, str) else None,
)
def test_all_that_decides_the_bytes_belongs_to_the_plan(
    change: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    stopped(source, output)
    for name in change.keys() & {"CHUNK", "CHUNK_CHARACTERS"}:
        for module in (chunks, bulk):
            monkeypatch.setattr(module, name, change[name], raising=False)
    data = change.get("settings", DataSettings())
    with pytest.raises(RunError, match=named):
        bulk.predict_source(Fake(), str(source), output, data, answers=change.get("answers"))  # type: ignore[arg-type]


def test_a_commit_comes_a_second_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing at every chunk would slow a fast machine."""
    now, commits, write = [0.0], [0], partial.append

    def append(stream: Any, data: bytes) -> None:
        commits[0] += Path(stream.name).name == partial.JOURNAL
        write(stream, data)

    def tick(rows: int, share: float | None) -> None:
        now[0] += 0.4

    monkeypatch.setattr(partial, "COMMIT_SECONDS", 1.0)
    monkeypatch.setattr(partial, "append", append)
    monkeypatch.setattr(partial, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert run(given_file(tmp_path, "in.csv"), tmp_path / "out.csv", progress=tick).rows == 20
    assert commits == [3]  # after the third and the sixth of seven chunks, and at the end


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


def test_rows_of_a_half_finished_output_by_another_newslora_are_not_gone_on_with(tmp_path: Path) -> None:
    plan = {"input": "x", "columns": ["text", "predicted"]}
    folder = tmp_path / "out.csv.partial"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan | {"format of the folder": 1}))
    (folder / "rows").write_bytes(b"text,predicted,probability,error\r\n")  # where today 'input_predicted' is kept
    told = r"holds rows that another newslora wrote \(format 1; this one writes 2\).* Begin again with --fresh"
    with pytest.raises(RunError, match=told), Partial.open(tmp_path / "out.csv", plan):
        pass
    with Partial.open(tmp_path / "out.csv", plan, fresh=True) as begun:
        assert begun.state.size == 0

"""What the benchmarks of whole jobs make of their measurements, by hand: no model, and a clock that is told the time."""

import io
import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmark_parts import Clock, script

from newslora.data.tokens import TokenTable
from newslora.predict import classifier as classifiers
from newslora.runtime import Precision

engine_alone, bulk_speed, bulk_memory, peers, swaps = (
    script(name) for name in ("engine_alone", "bulk_speed", "bulk_memory", "peers", "swaps")
)


# The engine alone


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_texts_are_as_many_as_asked_and_usable(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "rows.jsonl", ["a", "", "b", "c"])
    texts, facts = engine_alone.read_texts(str(source), 5)
    assert texts == ["a", "b", "c", "a", "b"]
    assert (facts["data"], facts["rows"], facts["distinct_rows"]) == ("rows.jsonl", 5, 3)
    assert len(facts["sha256"]) == 64
    texts, facts = engine_alone.read_texts(str(source), 2)
    assert (texts, facts["distinct_rows"]) == (["a", "b"], 2)
    with pytest.raises(SystemExit, match="no row of text"):
        engine_alone.read_texts(str(write_texts(tmp_path / "empty.jsonl", [""])), 2)


@pytest.mark.parametrize(
    ("export", "asked", "computed"),
    [
        (None, "fp32", "fp32"), ("merged", "fp32", "fp32"), ("onnx", "bf16", "fp32"), ("onnx-int8", "fp32", "int8"),
        ("int8", "fp32", "int8"),
    ],
)  # fmt: skip
def test_what_an_export_computes_in_stands_in_its_result(
    export: str | None, asked: str, computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_alone, "pick_device", lambda name: name)
    monkeypatch.setattr(engine_alone, "resolve_precision", lambda name, device: Precision(name, "asked for"))
    monkeypatch.setattr(
        engine_alone, "environment_record", lambda device, precision: {"precision": precision.name, "packages": {}}
    )
    assert engine_alone.environment(export, asked)["precision"] == computed


def test_only_passes_told_to_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenising takes 2 s and is told apart; a pass takes 60 s at first and 4 s later."""
    clock = Clock()
    passes: list[int] = []

    class Slow:
        engine = SimpleNamespace(name="packed")

        def rows(self, texts: list[str]) -> Any:
            clock.sleep(2)
            return SimpleNamespace(tokens=TokenTable.of([np.arange(len(text), dtype=np.int32) for text in texts]))

        def logits(self, rows: Any) -> None:
            clock.sleep(4 if passes else 60)
            passes.append(len(rows.tokens))

    loaded = []
    monkeypatch.setattr(classifiers.Classifier, "load", lambda *given: loaded.append(given) or Slow())
    monkeypatch.setattr(engine_alone, "time", clock)
    monkeypatch.setattr(engine_alone, "keep_freed_memory", lambda: None)
    (tmp_path / "texts").write_text('["abc", "abcde"]')
    monkeypatch.setattr(engine_alone.sys, "argv", ["engine_alone.py", "run", "bf16", str(tmp_path / "texts")])
    monkeypatch.setattr(engine_alone.sys, "stdin", io.StringIO("go\ngo\n"))
    told = io.StringIO()
    monkeypatch.setattr(engine_alone.sys, "stdout", told)
    engine_alone.main()
    facts, *seconds = map(json.loads, told.getvalue().splitlines())
    assert facts == {"rows": 2, "tokens_per_row": 4, "tokenise_seconds": 2, "engine": "packed"}
    assert seconds == [{"seconds": 4}, {"seconds": 4}]
    assert loaded == [("run", None, "bf16")]
    assert passes == [2, 2, 2]


# `newslora predict` from outside


class Command:
    """A child that does at each second what its list says, and ends with the list."""

    def __init__(self, clock: Clock, output: Path, happens: dict[int, Any]) -> None:
        self.clock, self.output, self.happens = clock, output, happens
        self.began, self.returncode, self.stderr = clock.now, None, io.BytesIO(b"why")

    def poll(self) -> int | None:
        for second in sorted(self.happens):
            if second <= self.clock.now - self.began:
                self._do(self.happens.pop(second))
        return self.returncode

    def _do(self, what: Any) -> None:
        partial = self.output.with_name(self.output.name + ".partial")
        if what == "begin":
            partial.mkdir()
            (partial / bulk_speed.PLAN).touch()
            (partial / bulk_speed.ROWS).touch()
        elif isinstance(what, int):
            with (partial / bulk_speed.ROWS).open("a") as stream:
                stream.writelines(f'{{"row": "{"x" * row}"}}\n' for row in range(what))  # of unlike lengths
        elif what == "name":
            (partial / bulk_speed.ROWS).rename(self.output)
        else:
            self.returncode = int(what.removeprefix("end "))


def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: dict[int, Any]) -> Any:
    clock, output, given = Clock(), tmp_path / "out.jsonl", []

    def popen(command: list[str], **how: Any) -> Command:
        given.append(command)
        return Command(clock, output, happens)

    monkeypatch.setattr(bulk_speed, "time", clock)
    monkeypatch.setattr(bulk_speed, "LOOK", 0.25)  # fewer looks, all of whose times are exact
    monkeypatch.setattr(bulk_speed.subprocess, "Popen", popen)
    found = bulk_speed.predict(Path("run"), Path("rows.jsonl"), output, "bf16")
    assert given[0][2:] == ["newslora", "predict", "run", "rows.jsonl", "-o", str(output), "--precision", "bf16"]
    return found


def test_each_part_of_a_command_is_told_by_what_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(tmp_path, monkeypatch, {5: "begin", 10: 4, 12: 8, 18: 8, 20: "name", 23: "end 0"})
    assert found == {
        "rows": 20,
        "start_seconds": 5,
        "whole": 20 / 15,  # from the fifth second until it has its name
        "steady": 16 / 8,  # all but the first four, from the tenth second to the eighteenth
        "end_seconds": 3,
    }
    assert not (tmp_path / "out.jsonl").exists()


def test_one_chunk_tells_no_steady_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="4 rows are too few"):
        watched(tmp_path, monkeypatch, {5: "begin", 10: 4, 20: "name", 23: "end 0"})


def test_a_command_that_fails_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="ended with 3: why"):
        watched(tmp_path, monkeypatch, {5: "begin", 7: "end 3"})


@pytest.mark.parametrize("export", [None, "merged", "int8"])
def test_bulk_and_its_engine_take_turns_and_medians_are_compared(
    export: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    steady, took = iter([30.0, 10.0, 20.0]), iter([0.1, 0.2, 0.05])

    class Engine:
        def __init__(self, run: Path, precision: str, texts: Path) -> None:
            self.facts = {"engine": "packed"}
            assert (json.loads(texts.read_text()), precision) == (["a", "b"], "bf16")

        def __enter__(self) -> "Engine":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def logits_seconds(self) -> float:
            told.append("engine")
            return next(took)

    def predict(run: Path, source: Path, output: Path, precision: str | None) -> dict[str, float]:
        assert [json.loads(line) for line in source.read_text().splitlines()] == [{"text": "a"}, {"text": "b"}]
        assert precision == (None if export == "int8" else "bf16")
        told.append("predict")
        rate = next(steady)
        return {"rows": 2, "start_seconds": 1, "whole": rate / 2, "steady": rate, "end_seconds": 0}

    monkeypatch.setattr(bulk_speed, "EngineAlone", Engine)
    monkeypatch.setattr(bulk_speed, "predict", predict)
    found = bulk_speed.measure(Namespace(run=Path("run"), precision="bf16", rounds=3), ["a", "b"], export)
    assert told == ["predict", "engine", "engine", "predict", "predict", "engine"]
    assert found["engine"] == {"median": 20, "lowest": 10, "highest": 40, "rounds": [20, 10, 40]}
    assert found["predict"]["steady"] == {"median": 20, "lowest": 10, "highest": 30, "rounds": [30, 10, 20]}
    assert (found["steady / engine"], found["whole / engine"]) == (1, 0.5)
    assert set(found["predict"]) == {"start_seconds", "whole", "steady", "end_seconds"}


def test_memory_is_told_by_the_share_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds 100 bytes and one more for each byte written, and held 500 between two looks."""
    written = [-5]

    def status(pid: int) -> dict[str, int]:
        written[0] += 5
        held = 100 + written[0]
        return {"VmRSS": held, "VmHWM": max(held, 500), "RssAnon": held - 50}

    def size_of(path: Path) -> int:
        assert path == tmp_path / "out.csv.partial" / "rows"
        return written[0]

    child = SimpleNamespace(pid=1, returncode=0, poll=lambda: None if written[0] < 100 else 0)
    monkeypatch.setattr(bulk_memory.subprocess, "Popen", lambda command: child)
    monkeypatch.setattr(bulk_memory, "status", status)
    monkeypatch.setattr(bulk_memory, "size_of", size_of)
    monkeypatch.setattr(bulk_memory, "INTERVAL", 0)
    found = bulk_memory.watch(["command"], tmp_path / "out.csv")
    assert found["peak_resident"] == 500
    assert found["peak_anonymous"] == 150
    assert found["resident_by_tenth"] == [110, 120, 130, 140, 150, 160, 170, 180, 190, 200]


# Beside other tools


def test_ways_take_turns_and_labels_are_compared_with_ours_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told, times_slower = Clock(), [], {1: 10, 2: 1, 3: 2}
    labels = {"pipeline": "WSBT", "newslora fp32": "WSBB", "newslora int8": "SSBB"}
    seconds = {"pipeline": 4.0, "newslora fp32": 2.0, "newslora int8": 1.0}

    def way(name: str) -> Any:
        def run(texts: list[str]) -> list[str]:
            told.append(name)
            clock.sleep(seconds[name] * times_slower[told.count(name)])
            return list(labels[name])

        return run

    monkeypatch.setattr(peers, "time", clock)
    found = peers.measure({name: way(name) for name in labels}, ["text"] * 4, 2)
    forth = list(labels)
    assert told == [*forth, *forth[1:], *forth[:1], *forth[2:], *forth[:2]]
    assert found["newslora fp32"]["same_labels"] == 4
    assert found["newslora int8"]["same_labels"] == found["pipeline"]["same_labels"] == 3
    assert found["newslora int8"]["texts_per_second"] == {"median": 3, "lowest": 2, "highest": 4}
    assert found["pipeline"]["texts_per_second"] == {"median": 0.75, "lowest": 0.5, "highest": 1}


# While adapters are replaced


def test_answers_of_another_version_are_wrong_and_percentiles_are_of_what_was_measured() -> None:
    right = {"one": np.array([[0.9, 0.1], [0.2, 0.8]]), "other": np.array([[0.5, 0.5], [0.4, 0.6]])}
    clients = swaps.Clients("http://here", ["a", "b"], right, 0.1)

    def answer(version: str, *probabilities: float) -> dict[str, Any]:
        named = dict(zip("WS", probabilities, strict=False))
        return {"version": version, "results": [{"probabilities": named}]}

    for place, said, milliseconds in (
        (0, answer("one", 0.90005, 0.09995), 10),
        (1, answer("other", 0.4, 0.6), 20),
        (1, answer("other", 0.2, 0.8), 30),  # the first version's
        (0, answer("third", 0.9, 0.1), 40),
        (0, answer("one", 0.9), 50),
        (0, {"error": "503"}, 60),
    ):
        clients._check(place, said, milliseconds)
    found = clients.record()
    assert (found["requests"], found["wrong"]) == (6, 4)
    assert found["answers_by_version"] == {"one": 1, "other": 1}
    assert found["p50_ms"] == 35
    assert 55 < found["p99_ms"] < found["most_ms"] == 60

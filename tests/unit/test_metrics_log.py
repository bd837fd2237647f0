"""What training logs: every line at once, and a disk that refuses ends it with one sentence, at once too."""

import json
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from refusing_parts import files_end_at
from tensorboardX.proto.event_pb2 import Event

from newslora.config import load_recipe
from newslora.errors import RunError, StorageError
from newslora.runfolder import RunFolder
from newslora.training import log
from newslora.training.log import MetricsLog


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", load_recipe("seed"))


def events(run: RunFolder) -> list[list[Any]]:
    """The events of each file in tensorboard/, which is records of a length, its checksum, so many bytes and their checksum."""
    found = []
    for path in sorted(run.tensorboard.iterdir()):
        data, place = path.read_bytes(), 0
        found.append([])
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            found[-1].append(Event.FromString(data[place + 12 : place + 12 + size]))
            place += 16 + size
    return found


def points(of: list[Any]) -> list[tuple[str, float, int]]:
    values = [(one.summary.value, one.step) for one in of if one.WhichOneof("what") == "summary"]
    return [(value[0].tag, value[0].simple_value, step) for value, step in values]


def line(step: int) -> dict[str, Any]:
    return {"epoch": 0.25, "loss": 0.5, "learning_rate": 0.125, "seconds": 1.0, "step": step}


def test_both_hold_every_line_and_no_thread_is_needed(run: RunFolder) -> None:
    before = set(threading.enumerate())
    with MetricsLog(run, 0) as written:
        written.write("train", **line(1))
        written.write("epoch", 1, recall={"World": 0.5, "Sports": None}, note="words")
        assert set(threading.enumerate()) == before
    kinds = [json.loads(text)["kind"] for text in run.metrics_file.read_text().splitlines()]
    assert kinds == ["train", "epoch"]
    (told,) = events(run)
    assert told[0].file_version == "brain.Event:2"
    assert points(told) == [
        ("train/epoch", 0.25, 1),
        ("train/loss", 0.5, 1),
        ("train/learning_rate", 0.125, 1),
        ("train/seconds", 1.0, 1),
        ("epoch/recall/World", 0.5, 1),
    ]


def test_a_sitting_that_goes_on_hides_points_that_come_again(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(log.time, "time", lambda: float(next(clock)))
    for resumed in (0, 1):
        with MetricsLog(run, resumed) as written:
            written.write("train", **line(resumed + 1))
    _, again = events(run)
    starts = [(one.step, one.session_log.status) for one in again if one.WhichOneof("what") == "session_log"]
    assert starts == [(2, 1)]  # SessionLog.START
    assert [step for _, _, step in points(again)] == [2] * 4


def test_tensorboard_sees_what_is_older_than_half_a_minute(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    with MetricsLog(run, 0) as written:
        written.write("train", **line(1))
        assert events(run) == [[]]
        now = log.FLUSH_SECONDS
        written.write("train", **line(2))
        assert [step for _, _, step in points(events(run)[0])][:4] == [1] * 4


@pytest.mark.parametrize(("what", "flushed_after"), [("metrics.jsonl", log.FLUSH_SECONDS), ("tensorboard", 0.0)])
def test_a_disk_that_refuses_is_one_sentence(
    what: str, flushed_after: float, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "FLUSH_SECONDS", flushed_after)  # an event file grows faster, once it is written

    def write_on() -> None:
        with files_end_at(1000), MetricsLog(run, 0) as written:
            for step in range(1, 1000):
                written.write("train", **line(step))

    with pytest.raises(StorageError, match=rf"Cannot write .*{what}: File too large\. To go on:"):
        write_on()


def test_an_error_is_not_replaced_by_what_closing_says(run: RunFolder) -> None:
    def fail() -> None:
        with files_end_at(10), MetricsLog(run, 0):
            raise RunError("the loss is not finite")

    with pytest.raises(RunError, match="not finite"):
        fail()


def test_what_only_closing_finds_is_told(run: RunFolder) -> None:
    def close() -> None:
        with files_end_at(10), MetricsLog(run, 0):
            pass

    with pytest.raises(StorageError, match=r"Cannot write .*tensorboard: File too large"):
        close()

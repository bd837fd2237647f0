"""metrics.jsonl and TensorBoard files: the same numbers, one line a logged step."""

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

from newslora import files
from newslora.errors import StorageError
from newslora.runfolder import RunFolder

VERSION = "brain.Event:2"  # of TensorBoard's event files
FLUSH_SECONDS = 30.0  # after which TensorBoard may see what was written


class MetricsLog:
    """Appends lines; on resuming, lines later than the checkpoint are dropped, for their steps will come again.

    Raises:
        RunError: the lines of an earlier sitting are damaged.
        StorageError: the disk refuses, here and in all calls.
    """

    def __init__(self, run: RunFolder, resume_step: int) -> None:
        kept = [line for line in run.metrics() if line["step"] <= resume_step] if resume_step else []
        files.write_text(run.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))
        self._path = run.metrics_file
        with files.disk_errors(self._path):
            self._stream = self._path.open("a", encoding="utf-8")
        self._board = _Board(run.tensorboard, resume_step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            self.close()
        except StorageError:  # what was refused is refused again: that was told
            if kind is None:
                raise

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line {"kind", "step", "time", ...}; numbers go to TensorBoard as kind/name, those by label as kind/name/label."""
        with files.disk_errors(self._path):
            self._stream.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **values}) + "\n")
            self._stream.flush()
        for name, value in values.items():
            for label, one in value.items() if isinstance(value, dict) else [(None, value)]:
                if isinstance(one, (int, float)):
                    self._board.add(f"{kind}/{name}" if label is None else f"{kind}/{name}/{label}", one, step)

    def close(self) -> None:
        with contextlib.closing(self._board), files.disk_errors(self._path):
            self._stream.close()


class _Board:
    """An event file for TensorBoard, written in the thread that asks for it.

    tensorboardX's SummaryWriter hands events to a thread by a queue of multiprocessing. That thread ends where the disk is
    full, and training then waits for it without end; and such a queue cannot be had without /dev/shm.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        from tensorboardX.record_writer import RecordWriter

        self._folder, self._flushed = folder, time.monotonic()
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"))
        self._write(file_version=VERSION)
        if resume_step:
            self._hide_from(resume_step + 1)

    def add(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""
        from tensorboardX.summary import scalar

        self._write(summary=scalar(tag, value), step=step)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            with files.disk_errors(self._folder):
                self._records.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        with files.disk_errors(self._folder):
            self._records.close()

    def _hide_from(self, step: int) -> None:
        """Let points of an earlier sitting be hidden whose steps come again."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self._write(file_version=VERSION, step=step)
        self._write(session_log=SessionLog(status=SessionLog.START), step=step)

    def _write(self, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with files.disk_errors(self._folder):
            self._records.write(Event(wall_time=time.time(), **what).SerializeToString())

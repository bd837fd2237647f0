"""metrics.jsonl and TensorBoard files: the same numbers, one line a logged step."""

import json
import time
from pathlib import Path
from typing import Any

from newslora import files
from newslora.runfolder import RunFolder


class MetricsLog:
    """Appends lines; on resuming, lines later than the checkpoint are dropped, for their steps will come again.

    Raises:
        RunError: the lines of an earlier sitting are damaged.
    """

    def __init__(self, run: RunFolder, resume_step: int) -> None:
        from tensorboardX import SummaryWriter

        kept = [line for line in run.metrics() if line["step"] <= resume_step] if resume_step else []
        files.write_text(run.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))
        self._stream = run.metrics_file.open("a", encoding="utf-8")
        # purge_step tells TensorBoard the same: points of the dropped steps are hidden
        self._board = SummaryWriter(str(run.tensorboard), purge_step=resume_step + 1 if resume_step else None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line {"kind", "step", "time", ...}; numbers go to TensorBoard as kind/name, those by label as kind/name/label."""
        with files.disk_errors(Path(self._stream.name)):
            self._stream.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **values}) + "\n")
            self._stream.flush()
        for name, value in values.items():
            for label, one in value.items() if isinstance(value, dict) else [(None, value)]:
                if isinstance(one, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}" if label is None else f"{kind}/{name}/{label}", one, step)

    def close(self) -> None:
        self._stream.close()
        self._board.close()

"""Commands against a hub of this machine (hub_server.py), and what such a hub has.

newslora runs in processes of its own, as the hub libraries read their environment when they are imported.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub_server import HubServer

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
SETTINGS = (
    "--set", "train.epochs=1", "--set", "train.log_every_steps=1", "--set", "data.validation_rows=8",
    "--set", "data.workers=0", "--device", "cpu",
)  # fmt: skip


# Runs command after command, one JSON list a line, in one process: its imports take longer than most commands. No report is
# drawn, which takes as long as a run. It leaves as a command does, without the interpreter's own end.
DRIVER = """
import contextlib, faulthandler, io, json, os, sys, time, traceback
from newslora import pipeline
from newslora.cli.app import main
pipeline.write_report = lambda run, manifest, device: None
for line in sys.stdin:
    faulthandler.dump_traceback_later(90, exit=True)  # a command that hangs fails, and shows where
    shown, began = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = main(json.loads(line))
        except SystemExit as exit:
            code = exit.code
        except BaseException:
            traceback.print_exc()
            code = 1
    faulthandler.cancel_dump_traceback_later()
    answer = {"code": code, "shown": shown.getvalue(), "seconds": time.monotonic() - began}
    print(json.dumps(answer), flush=True)
os._exit(0)
"""
SOON = 40  # seconds; nearly all of it is imports on a slow, busy machine, and waiting for a silent hub takes longer


@dataclass(frozen=True)
class Outcome:
    """What a command came to, and what it asked of the hub."""

    code: int
    shown: str  # standard output and error
    seconds: float
    requests: list[str]

    def refuses(self, code: int, *words: str) -> None:
        """One kind sentence with these words in it, this exit code, no traceback, and soon."""
        assert self.code == code, self.shown
        assert "Traceback" not in self.shown
        complaint = self.shown.strip().splitlines()[-1]
        assert complaint.startswith("newslora: ")
        assert self.shown.count("newslora: ") == 1
        for word in words:
            assert word in complaint
        assert self.seconds < SOON


@dataclass
class Session:
    """A process that runs newslora's commands against a hub."""

    hub: HubServer
    process: "subprocess.Popen[str]"
    folder: Path

    def run(self, *arguments: str) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = len(self.hub.requests)
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process died or hung; its standard error says where"
        answer = json.loads(line)
        return Outcome(answer["code"], answer["shown"], answer["seconds"], self.hub.requests[before:])

    def train(self, backbone: str, data: str, *more: str) -> Outcome:
        output = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        return self.run("train", "seed", "--backbone", backbone, "--data", data, *SETTINGS, *more, "-o", str(output))


@contextlib.contextmanager
def session(hub: HubServer, home: Path, folder: Path) -> Iterator[Session]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
        env=environment(hub, home),
    )  # fmt: skip
    with process:
        yield Session(hub, process, folder)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def environment(hub: HubServer, home: Path) -> dict[str, str]:
    """Ours without what steers the hub libraries, and with this hub and this cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return kept | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NEWSLORA_CACHE": str(home / "newslora"),
        "OMP_NUM_THREADS": "1",
    }


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def parquet(rows: int, words: str) -> bytes:
    """Rows with a ClassLabel, as `push_to_hub` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": LABELS, "_type": "ClassLabel"}}
    table = pa.table(
        {"text": [f"{words} {number}" for number in range(rows)], "label": [number % 4 for number in range(rows)]}
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def card(*configurations: str) -> bytes:
    """README.md of a data set: where each configuration has its splits."""
    lines = ["---", "configs:"]
    for name in configurations:
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - {{split: {split}, path: data/{split}-*}}" for split in ("train", "test")]
    return "\n".join([*lines, "---", "A data set of a test.", ""]).encode()

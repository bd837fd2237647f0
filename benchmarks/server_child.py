"""`newslora serve` as a child of a benchmark: started and waited for, asked what it knows, and ended by SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bulk_memory import status as memory

LOOK = 0.01  # seconds between questions to /ready
LEAVE = 90  # seconds to leave in after SIGTERM


class Served:
    """The server as a child; use `serving`."""

    def __init__(self, child: "subprocess.Popen[str]", began: float) -> None:
        self.child, self.exit_code = child, -1
        assert child.stdout is not None
        told = child.stdout.readline()
        if not told:
            raise SystemExit(f"The server ended with {child.wait()} before it listened.")
        self.url = told.split()[-1]
        # it says when to ask: asked a hundred times a second meanwhile, it is ready some tenths of a second later
        if not child.stdout.readline():
            raise SystemExit(f"The server ended with {child.wait()} before it was ready.")
        while not self._ready():
            time.sleep(LOOK)
        self.start_seconds = time.perf_counter() - began

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            found: bytes = answer.read()
        return found.decode()

    def facts(self) -> dict[str, Any]:
        """/v1/status and /metrics, asked once, and its memory in bytes."""
        told, passes = json.loads(self.get("/v1/status")), self.passes()
        held = memory(self.child.pid)
        return {
            "load": told["load"],
            "queue": told["queue"],
            "passes": passes,
            "texts_a_pass": passes["texts"] / max(1.0, passes["batches"]),
            "resident_bytes": held["VmRSS"],
            "peak_resident_bytes": held["VmHWM"],
            "anonymous_bytes": held["RssAnon"],
        }

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time so far: of the thread that talks to clients, which is the first, and of all."""
        pid = self.child.pid
        return {"server_thread": _cpu_seconds(f"/proc/{pid}/task/{pid}/stat"), "all": _cpu_seconds(f"/proc/{pid}/stat")}

    def passes(self) -> dict[str, float]:
        """Forward passes since the start, warm-up included."""
        from prometheus_client.parser import text_string_to_metric_families

        samples = (one for family in text_string_to_metric_families(self.get("/metrics")) for one in family.samples)
        found = {one.name: one.value for one in samples if one.name.startswith("newslora_batch")}
        return {
            "batches": found["newslora_batches_total"],
            **{what: found[f"newslora_batch_{what}_total"] for what in ("texts", "tokens", "seconds")},
        }

    def leave(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.exit_code = self.child.wait(LEAVE)

    def _ready(self) -> bool:
        try:
            self.get("/ready")
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return False
        except urllib.error.URLError:  # it has ended; its log says why
            self.child.wait(LEAVE)
            return False
        return True


def _cpu_seconds(path: str) -> float:
    user, system = Path(path).read_text().rpartition(")")[2].split()[11:13]  # proc(5): fields 14 and 15
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(run: Path, settings: dict[str, Any]) -> Iterator[Served]:
    """A server of one run that is ready; its log is shown where it fails."""
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "newslora", "serve", f"measured={run}", "--port", "0", *sets]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield Served(child, began)
        except BaseException:
            child.kill()
            child.wait()
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            print(log.read(), file=sys.stderr)
            raise
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()

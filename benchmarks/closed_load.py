"""Load by wrk on a server's /v1/classify: as many requests at all times, each connection's next one once it has its answer.

Used by serve_load.py for throughput. There the generator's own work counts against the server, for both share the cores, and
wrk, which is written in C, takes little. It comes with the system (`apt-get install wrk`).
"""

import json
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_suffix(".lua")


def closed_load(
    url: str, bodies: list[str], texts_a_request: int, in_flight: int, seconds: float, timeout: float
) -> dict[str, Any]:
    """What came of it: requests answered or not, errors among them, seconds, times in ms, the generator's processor time.

    Times are of what was answered within `timeout`, rightly or not, for wrk keeps no others.

    Args:
        url: of the server.
        bodies: of requests, sent in their order again and again.
        texts_a_request: answers that each must bring.
        in_flight: connections.
        seconds: that it lasts, whole ones.
        timeout: seconds from which an answer counts as an error.
    """
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.writelines(f"{body}\n" for body in bodies)
        file.flush()
        command = [
            "wrk", "--threads", "1", "--connections", str(in_flight), "--duration", f"{round(seconds)}s",
            "--timeout", f"{round(timeout)}s", "--script", str(SCRIPT), url, "--", file.name, str(texts_a_request),
        ]  # fmt: skip
        before = _processor_seconds()
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found | {"generator_cpu_seconds": _processor_seconds() - before}


def version() -> str:
    """wrk's, as it tells it."""
    told = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return told.split("[")[0].strip()


def check_installed() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk, which makes the load, is not installed: apt-get install wrk, or your system's way.")


def _processor_seconds() -> float:
    """Of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

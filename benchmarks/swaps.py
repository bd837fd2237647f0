"""One adapter replaced a thousand times while requests run: is every answer of the version it names, and does memory stay?

    python benchmarks/swaps.py RUN OTHER_RUN --data test.csv -o benchmarks/results/DATE-swaps-minilm.json

Two runs of one backbone take turns under one name, by `PUT /v1/adapters/news`, in a server of its own process. Meanwhile
clients ask, each a text at a time, after a random pause; an answer's probabilities must be those that the named version's run
gives by itself. Then the same for as long, a minute at most, without replacements, for times to compare with. Memory is the
server's resident set. Needs the extra `serve`. Times tell something on an idle machine only.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from bulk_memory import status as memory
from engine_alone import environment, read_texts, run_facts
from numpy.typing import NDArray
from server_child import Served, serving

from newslora import files
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

CLOSE = 1e-4  # of a probability: fp32, other neighbours in the batch
CLIENTS = 4
LOOKS = 20  # at the memory, evenly among the replacements


class Clients:
    """Threads that ask until told to stop, and check what they are told.

    Args:
        address: of the server.
        texts: to ask for.
        right: version -> (texts, labels) probabilities.
        pause: seconds between an answer and the next request, on average.
    """

    def __init__(self, address: str, texts: list[str], right: dict[str, NDArray[np.float64]], pause: float) -> None:
        self.address, self.texts, self.right, self.pause = address, texts, right, pause
        self.milliseconds: list[float] = []
        self.answers: dict[str, int] = dict.fromkeys(right, 0)
        self.wrong: list[str] = []
        self._over, self._noting = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on, args=(seed,), daemon=True) for seed in range(CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def record(self) -> dict[str, Any]:
        marks = statistics.quantiles(self.milliseconds, n=100, method="inclusive")  # within what was measured
        return {
            "requests": len(self.milliseconds), "answers_by_version": self.answers, "wrong": len(self.wrong),
            "first_wrong": self.wrong[:3], "p50_ms": marks[49], "p99_ms": marks[98], "most_ms": max(self.milliseconds),
        }  # fmt: skip

    def _ask_on(self, seed: int) -> None:
        chance = random.Random(seed)
        connection = HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        while not self._over.wait(chance.expovariate(1 / self.pause)):
            place = chance.randrange(len(self.texts))
            began = time.perf_counter()
            try:
                said = ask(
                    connection,
                    "POST",
                    "/v1/classify",
                    {"text": self.texts[place], "adapter": "news", "probabilities": True},
                )
            except (OSError, ValueError, HTTPException) as error:
                connection.close()  # it may be in the middle of something; the next request opens it again
                said = {"error": f"{type(error).__name__}: {error}"}
            self._check(place, said, 1000 * (time.perf_counter() - began))

    def _check(self, place: int, said: dict[str, Any], milliseconds: float) -> None:
        version, (result,) = said.get("version", ""), said.get("results") or [{}]
        got = list((result.get("probabilities") or {}).values())
        right = version in self.right and len(got) == self.right[version].shape[1]
        with self._noting:
            self.milliseconds.append(milliseconds)
            if not right or np.abs(self.right[version][place] - got).max() > CLOSE:
                self.wrong.append(json.dumps(said)[:500])
            else:
                self.answers[version] += 1


def ask(connection: HTTPConnection, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """JSON for JSON.

    Raises:
        ValueError: another status than 200 or 201.
    """
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = answer.read()
    if answer.status not in (200, 201):
        raise ValueError(f"{answer.status}: {told[:300]!r}")
    found: dict[str, Any] = json.loads(told)
    return found


def replaced(server: Served, folders: list[str], times: int) -> dict[str, Any]:
    """Replace it, by turns; how long each took, and the server's memory on the way."""
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    seconds, resident, open_files, threads = [], [], [], []
    for turn in range(times):
        began = time.perf_counter()
        ask(connection, "PUT", "/v1/adapters/news", {"folder": folders[turn % len(folders)]})
        seconds.append(time.perf_counter() - began)
        if turn % max(1, times // LOOKS) == 0:
            resident.append(memory(server.child.pid)["VmRSS"])
            open_files.append(sum(1 for _ in Path(f"/proc/{server.child.pid}/fd").iterdir()))
            threads.append(sum(1 for _ in Path(f"/proc/{server.child.pid}/task").iterdir()))
    return {
        "replacements": times, "median_seconds": statistics.median(seconds), "most_seconds": max(seconds),
        "resident_bytes": resident, "open_files": open_files, "threads": threads,
        "resident_growth": resident[-1] / resident[len(resident) // 4] - 1,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", default="corpus", help="where texts come from, as `newslora predict` takes it")
    parser.add_argument("--rows", type=int, default=500, help="texts to ask for")
    parser.add_argument("--replacements", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=0.2, help=f"seconds each of {CLIENTS} clients waits on average")
    given = parser.parse_args()
    texts, facts = read_texts(given.data, given.rows)
    classifiers = [Classifier.load(run) for run in given.runs]
    right = {one.card.weights_sha256[:12]: one.predict_proba(texts) for one in classifiers}
    if len(right) < 2:
        raise SystemExit("Both runs hold the same adapter; name two different ones.")
    with tempfile.TemporaryDirectory() as folder:
        for number, run in enumerate(given.runs):
            shutil.copytree(RunFolder.open(run).adapter_folder(), Path(folder) / str(number))
        with serving(given.runs[0], {"adapters_root": folder}) as server:
            ask(HTTPConnection(urlsplit(server.url).netloc), "PUT", "/v1/adapters/news", {"folder": "0"})
            with Clients(server.url, texts, right, given.pause) as warm:
                time.sleep(5)
            began = time.monotonic()
            with Clients(server.url, texts, right, given.pause) as swapping:
                changes = replaced(server, ["1", "0"], given.replacements)
            with Clients(server.url, texts, right, given.pause) as calm:
                time.sleep(min(60.0, time.monotonic() - began))
            server.leave()
    record = {
        "what": "an adapter replaced while requests run, every answer compared with the named version's own",
        "runs": [run_facts(run) for run in given.runs], "data": facts, "environment": environment(None, "fp32"),
        "settings": {"clients": CLIENTS, "pause": given.pause}, "swapping": swapping.record() | changes,
        "calm": calm.record(), "warm_up": {"wrong": len(warm.wrong)}, "exit": server.exit_code,
    }  # fmt: skip
    files.write_json(given.output, record)
    print(json.dumps({key: record[key] for key in ("swapping", "calm", "exit")}, indent=2))
    if any(one.wrong for one in (warm, swapping, calm)) or server.exit_code:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

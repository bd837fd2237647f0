"""Load on `newslora serve`: latencies of an open model from the intended start, or HTTP throughput beside the engine's own.

    python benchmarks/serve_load.py RUN --data test.csv --rate 250 -o benchmarks/results/DATE-load-minilm.json
    python benchmarks/serve_load.py RUN/exports/onnx-int8 --data test.csv --rate 40 --seconds 1800 -o ...
    python benchmarks/serve_load.py RUN --data test.csv --capacity -o benchmarks/results/DATE-capacity-minilm.json

Needs the extra `serve`, and `load` or, for --capacity, wrk. RUN is a run or an export; texts are --data's (title and
description), never kept. The server is a child (server_child.py): the seconds from its start to a /ready that says yes are
kept, and in the end it must leave with 0 on SIGTERM.

Open load (load_generator.py, locust in another child): Poisson arrivals at --rate for --seconds, after --warmup seconds that
are not counted; one request each, whatever became of earlier ones. A request's time counts from the moment it was due, so a
stall of server or generator costs every request that fell into it. Errors' times count too. At most --in-flight requests may be
under way; more are not sent: each is an error, timed as if it had waited --timeout.

--capacity: closed, --in-flight requests at all times for --seconds (closed_load.py, wrk), beside `Classifier.logits` on the
same rows, already tokenised, in a child of its own; by turns, each first every other round, the other idle; the first is not
counted. Texts of requests that failed are none. The server's processor time of each round is kept too, by itself that of the
thread that talks to clients.

Settings raised for the measurement: idle_seconds, so that no connection is closed while the generator picks it up; connections,
queue_rows and queue_tokens in so far as --in-flight could reach them. Without keys the server limits no rates. All are kept in
the result; --set adds others. Generator and server share the machine's cores: what the former took is kept
(generator_cpu_seconds), how late it sent (sent_late_ms), and by the minute what requests took and what the processors did, in
percent: `steal` is what the host gave to others. Run it on an idle machine.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from closed_load import check_installed, closed_load, version
from engine_alone import OWN_PRECISION, EngineAlone, environment, read_texts, run_facts
from server_child import Served, serving

from newslora import files
from newslora.errors import MissingExtraError
from newslora.serving.settings import ServeSettings

GENERATOR = Path(__file__).with_name("load_generator.py")
IDLE_SECONDS = 3600
MINUTE = 60.0  # seconds
SERIES = ("http_rounds", "ms_by_minute", "processors_by_minute")  # too long to be printed


def bodies(texts: list[str], together: int) -> list[str]:
    """Request bodies, made before the load so as not to cost time during it; a rest of texts is left out."""
    groups = (texts[place : place + together] for place in range(0, len(texts) - together + 1, together))
    return [json.dumps({"text": some[0]} if together == 1 else {"texts": some}) for some in groups]


def generate(server: Served, texts: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """What locust made of an open load, in a child of its own."""
    work = {
        "url": server.url, "bodies": bodies(texts, given.texts), "texts_a_request": given.texts, "rate": given.rate,
        "seconds": given.seconds, "warmup": given.warmup, "in_flight": given.in_flight, "timeout": given.timeout,
        "seed": given.seed,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(GENERATOR)], input=json.dumps(work) + "\n", stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"The generator ended with {done.returncode}; its words are above.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def watched_processors() -> Iterator[list[dict[str, float]]]:
    """Gets, minute by minute, the share of the processors' time that was worked, and that the host gave to others (steal)."""
    import psutil  # which locust brings

    shares: list[dict[str, float]] = []
    over = threading.Event()

    def look() -> None:
        psutil.cpu_times_percent()
        while not over.wait(MINUTE):
            now = psutil.cpu_times_percent()
            shares.append({"worked": round(100 - now.idle - now.iowait - now.steal, 1), "steal": now.steal})

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield shares
    finally:
        over.set()
        looking.join()


def open_load(server: Served, texts: list[str], given: argparse.Namespace) -> dict[str, Any]:
    with watched_processors() as shares:
        found = generate(server, texts, given) | {"processors_by_minute": shares}
    span = max(found["seconds"], given.seconds)
    good = found["requests"] - found["errors"]
    return {"rate_asked": given.rate, "rate_achieved": good / span, **found}


def capacity(server: Served, texts: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Texts a second over HTTP and by the engine, by turns."""
    sent = bodies(texts, given.texts)
    rates: dict[str, list[float]] = {"http": [], "engine": []}
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        files.write_json(path, texts)
        with EngineAlone(given.run, given.precision, path) as engine:
            for turn in range(given.rounds + 1):
                for way in ("http", "engine") if turn % 2 == 0 else ("engine", "http"):
                    if way == "engine":
                        rate = len(texts) / engine.logits_seconds()
                    else:
                        used = server.cpu_seconds()
                        one = closed_load(server.url, sent, given.texts, given.in_flight, given.seconds, given.timeout)
                        worked = {name: now - used[name] for name, now in server.cpu_seconds().items()}
                        found.append(one | {"server_cpu_seconds": worked})
                        rate = given.texts * (one["requests"] - one["errors"]) / one["seconds"]
                    if turn:
                        rates[way].append(rate)
                    print(f"round {turn}: {way} {rate:.1f} texts/s", flush=True)
            facts = engine.facts
    median = {way: statistics.median(some) for way, some in rates.items()}
    return {
        "texts_per_second": {
            way: {"median": median[way], "lowest": min(some), "highest": max(some), "rounds": some}
            for way, some in rates.items()
        },
        "http / engine": median["http"] / median["engine"],
        "server_thread_ms_a_request": statistics.median(
            1000 * one["server_cpu_seconds"]["server_thread"] / one["requests"] for one in found[1:]
        ),
        "generator_ms_a_request": statistics.median(
            1000 * one["generator_cpu_seconds"] / one["requests"] for one in found[1:]
        ),
        "errors": sum(one["errors"] for one in found),
        "engine_alone": facts,
        "http_rounds": found[1:],
    }


def server_settings(given: argparse.Namespace, export: str | None) -> dict[str, Any]:
    """What is set beside the defaults."""
    usual, rows = ServeSettings(), given.in_flight * given.texts
    settings: dict[str, Any] = {"idle_seconds": IDLE_SECONDS}
    if export not in OWN_PRECISION:
        settings["precision"] = given.precision
    least = {
        "connections": given.in_flight + 10,
        "queue_rows": rows,
        "queue_tokens": rows * 512,
        "max_texts": given.texts,
    }
    settings |= {name: value for name, value in least.items() if value > getattr(usual, name)}
    return settings | dict(text.split("=", 1) for text in given.set)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", default="corpus", help="where texts come from, as `newslora predict` takes it")
    parser.add_argument("--rows", type=int, default=2000, help="texts, sent in their order again and again")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="that count; of --capacity: a round")
    parser.add_argument("--warmup", type=float, default=10.0, help="seconds before them")
    parser.add_argument("--texts", type=int, default=1, help="a request")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds the generator waits for an answer")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument(
        "--in-flight", type=int, help="open: at most, 900 unless said; capacity: always, 64 unless said"
    )
    parser.add_argument("--capacity", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="of --capacity")
    parser.add_argument("--precision", default="fp32", help="of a run; most exports have their own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    given = parser.parse_args()
    given.in_flight = given.in_flight or (64 if given.capacity else 900)
    return given


def main() -> None:
    given = arguments()
    if given.capacity:
        check_installed()
    elif importlib.util.find_spec("locust") is None:
        raise SystemExit(str(MissingExtraError("The load generator", "load")))
    before = os.getloadavg()
    run = run_facts(given.run)
    texts, data = read_texts(given.data, given.rows)
    settings = server_settings(given, run["export"])
    with serving(given.run, settings) as server:
        found = (capacity if given.capacity else open_load)(server, texts, given)
        facts = server.facts()
        server.leave()
    kept = (
        "texts",
        "in_flight",
        "timeout",
        "seconds",
        *(("rounds",) if given.capacity else ("rate", "warmup", "seed")),
    )
    result = {
        "what": "HTTP throughput beside the engine's own, by turns"
        if given.capacity
        else "open load on newslora serve, Poisson arrivals, times from the intended start",
        "run": run,
        "texts": data,
        "settings": {name: getattr(given, name) for name in kept},
        "server_settings": settings,
        "generator": version() if given.capacity else "locust",
        "load_average_before": before,
        "environment": environment(run["export"], given.precision),
        "start_to_ready_seconds": server.start_seconds,
        **found,
        "server": facts | {"exit_code": server.exit_code},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_json(given.output, result)
    print(json.dumps({key: result[key] for key in ("start_to_ready_seconds", *found) if key not in SERIES}, indent=2))
    if server.exit_code:
        raise SystemExit(f"The server left with exit code {server.exit_code}, not 0.")


if __name__ == "__main__":
    main()

"""Load by locust on a server's /v1/classify, in a process of its own: gevent, which locust brings, changes Python's sockets.

Child of serve_load.py. Standard input: one JSON object of the fields of `Work`; standard output: one JSON object. Locust's
users wait for their answers, which is a closed model, and wrk's (closed_load.py); so arrivals are made here, a greenlet each,
and locust does the rest: its HTTP client, its request event, its statistics.
"""

import dataclasses
import gc
import itertools
import json
import random
import resource
import sys
import time
from typing import Any

import gevent
import locust.stats
from gevent.pool import Group
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook
from locust.stats import RequestStats

PATH = "/v1/classify"
HEADERS = {"Content-Type": "application/json"}
NO_ERROR = b'"error":null'  # stands once for each text that was answered
LEAD = 0.2  # seconds between set-up and the first arrival
MINUTE = 60.0  # seconds


@dataclasses.dataclass(frozen=True)
class Work:
    """What to do: Poisson arrivals for `warmup` and then `seconds`, whatever became of earlier ones."""

    url: str
    bodies: list[str]  # of requests, sent in their order again and again
    texts_a_request: int
    rate: float  # requests a second
    seconds: float
    warmup: float  # seconds of arrivals that are not counted
    in_flight: int  # more are not sent and count as errors
    timeout: float  # seconds to wait for an answer
    seed: int


class Refused(Exception):
    """A kind of error; its repr is what locust keeps it by."""

    def __repr__(self) -> str:
        return str(self)


class Generator:
    """Sends, and counts from the moment each request was due."""

    def __init__(self, work: Work) -> None:
        self.work = work
        locust.stats.bucket_response_time = lambda ms: round(ms, 1)  # 0.1 ms
        self.environment = Environment()
        self.environment.stats = RequestStats(use_response_times_cache=False)
        self.environment.create_local_runner()  # it is what listens to the request event
        self.late = RequestStats(use_response_times_cache=False)
        self.minutes: list[RequestStats] = []  # of the requests due in each
        heard = EventHook()  # of the client, whose times begin when it sends
        heard.add_listener(self._heard)
        self.session = FastHttpSession(
            work.url, heard, None, concurrency=work.in_flight, network_timeout=work.timeout,
            connection_timeout=work.timeout, max_retries=0,
        )  # fmt: skip
        self.begin = 0.0  # requests due before it are the warm-up
        self.warmup_errors = 0
        self.last = 0.0  # when the last counted answer came
        self.in_flight = self.most_in_flight = 0

    def send(self, due: float, body: bytes) -> None:
        """One request; its time counts from `due`, of `time.perf_counter`."""
        if due >= self.begin:
            self.late.log_request("", "late", max(0.0, (time.perf_counter() - due) * 1000), 0)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.session.request("POST", PATH, data=body, headers=HEADERS, context={"due": due})
        finally:
            self.in_flight -= 1

    def run(self) -> None:
        """Send all, and wait for the last."""
        work, group, draw = self.work, Group(), random.Random(self.work.seed)
        start = due = time.perf_counter() + LEAD
        self.begin = start + work.warmup
        for body in itertools.cycle([body.encode() for body in work.bodies]):
            due += draw.expovariate(work.rate)
            if due >= self.begin + work.seconds:
                break
            gevent.sleep(max(0.0, due - time.perf_counter()))  # 0 lets the others go on where this is late
            if len(group) < work.in_flight:
                group.spawn(self.send, due, body)
            else:  # never sent: no answer within the longest wait
                self._count(due, work.timeout * 1000, 0, Refused("not sent: too many in flight"))
        group.join(timeout=work.timeout * 2)
        if len(group):
            raise SystemExit(f"{len(group)} requests neither ended nor ran out of time.")

    def _heard(self, context: Any, response: Any, exception: Any, response_length: int, **_: Any) -> None:
        now, wanted = time.perf_counter(), self.work.texts_a_request
        if exception is not None or response.status_code != 200:
            exception = Refused(kind(response, exception))
        elif response.content.count(NO_ERROR) != wanted:
            exception = Refused(f"not {wanted} answers")
        self._count(context["due"], (now - context["due"]) * 1000, response_length, exception)

    def _count(self, due: float, milliseconds: float, length: int, error: Exception | None) -> None:
        if due < self.begin:
            self.warmup_errors += error is not None
            return
        self.last = time.perf_counter()
        while len(self.minutes) <= (minute := int((due - self.begin) // MINUTE)):
            self.minutes.append(RequestStats(use_response_times_cache=False))
        self.minutes[minute].log_request("", "minute", milliseconds, length)
        if error is not None:
            self.minutes[minute].log_error("", "minute", error)
        self.environment.events.request.fire(
            request_type="POST", name=PATH, response_time=milliseconds, response_length=length, exception=error
        )

    def result(self, used: float) -> dict[str, Any]:
        """What locust counted; `used`: seconds of processor time so far that were not load."""
        total, late = self.environment.stats.total, self.late.total
        return {
            "requests": total.num_requests,
            "errors": total.num_failures,
            "errors_by_kind": {str(one.error): one.occurrences for one in self.environment.stats.errors.values()},
            "warmup_errors": self.warmup_errors,
            "ms": times(total),
            "sent_late_ms": times(late),
            "ms_by_minute": [
                {"requests": one.num_requests, "errors": one.num_failures, **times(one)}
                for one in (stats.total for stats in self.minutes)
            ],
            "most_in_flight": self.most_in_flight,
            "seconds": self.last - self.begin,
            "generator_cpu_seconds": processor_seconds() - used,
        }


def kind(response: Any, exception: Any) -> str:
    """'503 overloaded', or what failed below HTTP; no texts."""
    status = getattr(response, "status_code", 0)
    if not status:
        return type(getattr(response, "error", None) or exception).__name__
    try:
        return f"{status} {json.loads(response.content)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(status)


def times(entry: Any) -> dict[str, float]:
    """Locust's percentiles in ms, errors included; the histogram has steps of 0.1 ms."""
    found = {f"p{share * 100:g}": entry.get_response_time_percentile(share) for share in (0.5, 0.9, 0.99, 0.999)}
    return found | {"mean": entry.avg_response_time, "max": round(entry.max_response_time, 1)}


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    work = Work(**json.loads(sys.stdin.readline()))
    generator = Generator(work)
    gc.collect()
    gc.freeze()  # what is here stays: later collections need not look at it
    used = processor_seconds()
    generator.run()
    print(json.dumps(generator.result(used)), flush=True)


if __name__ == "__main__":
    main()

"""The service under load: who is computed together, who waits, who is refused."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from service_parts import LONG, TEXTS, Gate, entered, waiting
from service_parts import folders as folders  # a fixture
from service_parts import make_service as make_service  # a fixture

from newslora.errors import DeadlineError, OverloadedError, SettingsError
from newslora.serving.jobs import LONGEST_WAIT
from newslora.serving.service import Service
from newslora.serving.settings import ServeSettings


def test_what_piles_up_is_computed_together_and_a_lone_request_at_once(make_service: Callable[..., Service]) -> None:
    service = make_service("news", "desk")
    gate = Gate(service)

    async def pile_up() -> None:
        first = asyncio.create_task(service.answer("news", TEXTS[:1]))
        await entered(gate)  # alone, without waiting for others
        rest = [asyncio.create_task(service.answer(name, TEXTS)) for name in ("desk", "news", "desk")]
        await waiting(service, 10)
        assert service.queue().tokens > 0
        gate.open.set()
        await asyncio.gather(first, *rest)

    asyncio.run(pile_up())
    assert [len(jobs) for jobs in gate.passes] == [1, 9]
    assert service.queue().rows == service.queue().tokens == 0


def test_passes_run_at_the_same_time_and_share_what_waits(make_service: Callable[..., Service]) -> None:
    service = make_service("news", "desk", passes=2)
    gate = Gate(service)

    async def crowd() -> list[Any]:
        async with asyncio.timeout(20):
            while gate.lane._free < 2:  # both threads are there
                await asyncio.sleep(0.005)
            asked = [asyncio.create_task(service.answer("news", ["treaty"] * 6))]
            while len(gate.passes) < 2:
                await asyncio.sleep(0.005)
        asked.append(asyncio.create_task(service.answer("desk", TEXTS)))
        await waiting(service, 9)
        assert [len(jobs) for jobs in gate.passes] == [3, 3]  # each half, and the third request waits for either
        gate.open.set()
        return await asyncio.gather(*asked)

    news, desk = asyncio.run(crowd())
    assert [len(jobs) for jobs in gate.passes] in ([3, 3, 3], [3, 3, 2, 1], [3, 3, 1, 2])
    assert {one.served.name for one in news} == {"news"}
    assert {one.served.name for one in desk} == {"desk"}
    service.drain(10)  # a pass is counted after it is answered
    assert service.passes()["texts"] == 9


def test_a_pass_a_thread_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for threads, passes, made, each in ((2, None, 2, 1), (16, None, 4, 4), (1, None, 1, 1), (2, 3, 3, 1), (8, 2, 2, 4)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        service = Service(ServeSettings(passes=passes))
        service.share_threads()
        assert (service._opener.at_once, asked.pop()) == (made, each)


def test_turns_let_neither_long_nor_late_requests_starve(make_service: Callable[..., Service]) -> None:
    service = make_service("topics", batch_tokens=64)
    gate = Gate(service)

    async def crowd() -> list[str]:
        finished: list[str] = []

        async def ask(name: str, texts: list[str]) -> None:
            await service.answer(None, texts)
            finished.append(name)

        first = asyncio.create_task(ask("first", ["treaty"]))
        await entered(gate)
        tasks = [asyncio.create_task(ask("long", [LONG]))]
        await waiting(service, 2)
        tasks += [asyncio.create_task(ask(f"short {n}", ["treaty peace"])) for n in range(20)]
        await waiting(service, 22)
        gate.open.set()
        await asyncio.gather(first, *tasks)
        return finished

    finished = asyncio.run(crowd())
    assert finished[0] == "first"
    assert finished[-1] == "long"  # of 24 windows in passes of five
    assert finished[1:-1] == [f"short {n}" for n in range(20)]  # first come, first served
    long = gate.passes[1][0]
    assert all(long in jobs for jobs in gate.passes[1:-1])  # it has its share of every pass
    assert all(len(jobs) > 1 for jobs in gate.passes[1:6])


def test_bounds_refuse_with_the_time_to_try_again(make_service: Callable[..., Service]) -> None:
    service = make_service("news", "desk", queue_rows=4, queue_tokens=40)
    gate = Gate(service)

    async def overload() -> None:
        with pytest.raises(SettingsError, match="holds 5 texts, and the queue holds at most 4"):
            await service.answer("news", ["treaty"] * 5)
        tasks = [asyncio.create_task(service.answer("news", ["treaty"] * 3))]
        await waiting(service, 3)
        with pytest.raises(OverloadedError, match="3 texts of some 9 tokens are queued already") as refused:
            await service.answer("desk", ["treaty"] * 2)
        assert refused.value.retry_after >= 1
        with pytest.raises(OverloadedError, match="the queue holds at most 4 texts and 40 tokens"):
            await service.answer("desk", [LONG])
        tasks.append(asyncio.create_task(service.answer("desk", ["treaty"])))
        await waiting(service, 4)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert len(await service.answer("news", [LONG])) == 1  # alone, a text of any length

    asyncio.run(overload())
    waits = service._lanes()[0].waiting
    waits.rate, waits.tokens = 10.0, 400
    assert waits.retry_after() == 20
    waits.tokens = 100_000
    assert waits.retry_after() == LONGEST_WAIT  # nobody is sent away for hours
    waits.tokens = 0


def test_of_two_encoders_of_one_name_the_fuller_is_told_of(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    service = make_service("deberta", start=False)
    service.load("again", folders["deberta"])
    first, second = service._lanes()
    second.name = first.name  # as two revisions of one backbone have
    for one, other in ((first, second), (second, first)):
        one.waiting.rows, other.waiting.rows = 3, 1
        assert [state.rows for state in service.queues().values()] == [3]
    first.waiting.rows = second.waiting.rows = 0


def test_the_queue_told_of_is_the_fullest_encoders(make_service: Callable[..., Service]) -> None:
    service = make_service("news", "deberta", start=False, queue_rows=10, queue_tokens=10_000)

    async def fill() -> None:
        asked = [asyncio.create_task(service.answer(name, ["treaty"])) for name in ["deberta"] * 9 + ["news"]]
        async with asyncio.timeout(20):
            while sum(state.rows for state in service.queues().values()) < 10:
                await asyncio.sleep(0.005)
        assert (service.queue().rows, service.queue().rows_bound, service.queue().share) == (9, 10, 0.9)
        assert sorted(state.rows for state in service.queues().values()) == [1, 9]
        service.start()
        await asyncio.gather(*asked)

    asyncio.run(fill())
    for name in ("news", "deberta"):
        service.remove(name)
    assert (service.queue().rows, service.queue().rows_bound, service.queues()) == (0, 10, {})


def test_late_requests_are_dropped_before_they_are_computed(make_service: Callable[..., Service]) -> None:
    service = make_service("news")
    gate = Gate(service)

    async def late() -> None:
        first = asyncio.create_task(service.answer(None, TEXTS))
        await entered(gate)
        began = time.monotonic()
        with pytest.raises(DeadlineError, match="not there in time"):
            await service.answer(None, TEXTS, deadline=began + 0.05)
        assert 0.04 < time.monotonic() - began < 5  # though the worker is busy
        gate.open.set()
        await first
        with pytest.raises(DeadlineError):
            await service.answer(None, TEXTS, deadline=began)

    asyncio.run(late())
    assert [len(jobs) for jobs in gate.passes] == [3]
    assert service.queue().rows == 0


def test_what_a_client_waits_for_decides_whether_it_is_taken(make_service: Callable[..., Service]) -> None:
    """Its own deadline, not the usual one."""
    service = make_service("news", deadline_seconds=60)
    gate = Gate(service)

    async def ask() -> None:
        first = asyncio.create_task(service.answer(None, TEXTS))
        await entered(gate)
        gate.lane.waiting.rate = 4.0  # tokens a second: some 20 wait, and another 20 come
        with pytest.raises(OverloadedError, match=r"its deadline is in [0-5]\.\d s"):
            await service.answer(None, TEXTS, deadline=time.monotonic() + 5)
        taken = asyncio.create_task(service.answer(None, TEXTS))
        await waiting(service, 2 * len(TEXTS))
        gate.open.set()
        await asyncio.gather(first, taken)

    asyncio.run(ask())


def test_rows_past_their_deadline_are_dropped_by_the_worker_too(make_service: Callable[..., Service]) -> None:
    """Whoever waits may be slow to give up: the worker looks itself."""
    from newslora.serving.jobs import Job

    service = make_service("news", start=False)
    held = service._held["news"]
    outcomes: list[Any] = []
    held.lane.submit(Job(held.classifier, ("treaty",), time.monotonic() - 1, outcomes.append))
    service.start()
    service.drain(10)
    assert [type(one) for one in outcomes] == [DeadlineError]


def test_a_client_that_goes_takes_its_rows_along(make_service: Callable[..., Service]) -> None:
    service = make_service("news")
    gate = Gate(service)

    async def leave() -> None:
        first = asyncio.create_task(service.answer(None, TEXTS[:1]))
        await entered(gate)
        gone = asyncio.create_task(service.answer(None, TEXTS))
        await waiting(service, 4)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert service.queue().rows == 1
        gate.open.set()
        await first

    asyncio.run(leave())
    assert [len(jobs) for jobs in gate.passes] == [1]

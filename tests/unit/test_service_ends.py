"""The service where something ends: a request that fails, a worker that dies, a drain; and nobody is left waiting."""

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from service_parts import TEXTS, Gate, entered
from service_parts import folders as folders  # a fixture
from service_parts import make_service as make_service  # a fixture

from newslora.errors import DrainingError, WorkerError
from newslora.serving.service import Service


@pytest.mark.parametrize("part", ["forward", "tokens"])
def test_one_request_that_cannot_be_computed_fails_alone(
    part: str, make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service("news", "desk", start=False)
    held = service._held["news"]
    compute, rows = held.lane.compute, held.classifier.rows

    def choke(pieces: Any) -> Any:
        if any("treaty" in piece.job.texts for piece in pieces):
            raise ValueError("choked")
        return compute(pieces)

    def choke_on(texts: Any) -> Any:
        if "treaty" in texts:
            raise ValueError("choked")
        return rows(texts)

    if part == "forward":
        monkeypatch.setattr(held.lane, "compute", choke)
    else:
        monkeypatch.setattr(held.classifier, "rows", choke_on)

    async def together() -> list[Any]:
        asked = [asyncio.create_task(service.answer("news", [text])) for text in ("peace", "treaty", "army")]
        while service.queue().rows < 3:
            await asyncio.sleep(0.005)
        service.start()
        return await asyncio.gather(*asked, return_exceptions=True)

    good, bad, also = asyncio.run(together())
    assert good[0].prediction.label
    assert also[0].prediction.label
    assert isinstance(bad, WorkerError)
    assert "choked" in str(bad)
    assert not service.problems()
    assert service.queue().rows == service.queue().tokens == 0  # what failed holds no room


@pytest.mark.parametrize("part", ["forward", "tokens"])
def test_a_worker_that_dies_fails_its_callers_and_says_so(part: str, make_service: Callable[..., Service]) -> None:
    service = make_service("news", "deberta")
    lane = service._held["news"].lane

    def die(*_: Any) -> Any:
        raise SystemExit("out of memory")

    if part == "forward":
        lane.waiting.worked = die  # type: ignore[method-assign]
    else:
        lane._next_raw = die  # type: ignore[method-assign]

    async def ask() -> None:
        outcomes = await asyncio.gather(*(service.answer("news", TEXTS[:1]) for _ in range(3)), return_exceptions=True)
        assert any(isinstance(one, WorkerError) for one in outcomes) or part == "forward"
        while not service.problems():  # a thread's end
            await asyncio.sleep(0.005)
        with pytest.raises(WorkerError, match="out of memory"):
            await service.answer("news", TEXTS)
        assert len(await service.answer("deberta", TEXTS)) == 3  # another lane goes on

    asyncio.run(ask())
    (problem,) = service.problems()
    assert "Restart the service" in problem


def test_a_lane_without_any_answer_is_given_up(make_service: Callable[..., Service]) -> None:
    """Three passes in a row without one; with an answer between them they are counted anew."""
    service = make_service("news")
    lane = service._held["news"].lane
    compute = lane.compute

    def fail(pieces: Any) -> Any:
        if pieces[0].job.texts == ("peace",):
            return compute(pieces)
        raise RuntimeError("no memory")

    lane.compute = fail

    async def ask(*texts: str) -> None:
        for text in texts:
            if text == "peace":
                await service.answer(None, [text])
                continue
            with pytest.raises(WorkerError, match="no memory"):
                await service.answer(None, [text])

    asyncio.run(ask("treaty", "treaty", "peace", "treaty", "treaty", "peace"))
    assert not service.problems()
    asyncio.run(ask("treaty", "treaty", "treaty"))
    lane._threads[1].join(10)
    assert service.problems()


def test_draining_finishes_what_is_accepted_and_takes_nothing_new(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    service = make_service("news", batch_tokens=8)
    gate = Gate(service)

    async def drain() -> None:
        accepted = asyncio.create_task(service.answer(None, TEXTS))
        await entered(gate)
        ending = asyncio.create_task(asyncio.to_thread(service.drain))
        while not service._draining:  # a thread's doing
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        with pytest.raises(DrainingError):
            await service.answer(None, TEXTS)
        with pytest.raises(DrainingError):
            await asyncio.to_thread(service.load, "desk", folders["desk"])
        assert not ending.done()
        gate.open.set()
        assert len(await accepted) == 3
        await ending

    asyncio.run(drain())


def test_draining_ends_the_threads_that_have_nothing_to_compute_too(make_service: Callable[..., Service]) -> None:
    service = make_service("news", passes=2)
    gate = Gate(service)

    async def drain() -> None:
        accepted = asyncio.create_task(service.answer(None, TEXTS[:1]))  # for one of the two
        await entered(gate)
        ending = asyncio.create_task(asyncio.to_thread(service.drain, 20.0))  # then it wakes them all
        while not service._draining:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # the other has seen that something is being computed, and waits again
        gate.open.set()
        await accepted
        await asyncio.wait_for(ending, 10)

    asyncio.run(drain())
    assert len(gate.lane._threads) == 3


def test_draining_within_a_time_gives_up_what_is_left(make_service: Callable[..., Service]) -> None:
    service = make_service("news")
    gate = Gate(service)

    async def drain() -> None:
        accepted = asyncio.create_task(service.answer(None, TEXTS))
        await entered(gate)
        await asyncio.to_thread(service.drain, 0.05)
        with pytest.raises(DrainingError):
            await accepted
        gate.open.set()

    asyncio.run(drain())


def test_the_time_to_drain_is_one_for_all_lanes_and_threads(make_service: Callable[..., Service]) -> None:
    service = make_service("news", "deberta", start=False)
    given: list[float] = []

    def join(seconds: float) -> None:
        given.append(seconds)
        time.sleep(0.05)

    for lane in service._lanes():
        lane._threads = [SimpleNamespace(is_alive=lambda: True, join=join)] * 2  # type: ignore[list-item]
    service.drain(10.0)
    assert len(given) == 4
    assert all(later <= earlier - 0.05 for earlier, later in itertools.pairwise([10.05, *given]))

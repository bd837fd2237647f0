"""The service: whose version answers, who waits, who is refused, and that nobody is left waiting."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from transformers import AutoModel, DebertaV2Config

from newslora.errors import (
    CanaryError,
    DeadlineError,
    DrainingError,
    OverloadedError,
    RunError,
    SettingsError,
    UnknownAdapterError,
    WorkerError,
)
from newslora.model.shared import load_encoder
from newslora.predict.classifier import LEVELS_KEPT, Classifier
from newslora.predict.conformal import AnswerSets
from newslora.serving.service import Service
from newslora.serving.settings import ServeSettings

TEXTS = ["striker scores twice as club wins cup final", "treaty", "army and rebels sign peace accord in capital"]
LONG = "minister meets president over border treaty " * 40
NEWS, DESK = ("World", "Sports"), ("Politics", "Sports", "Science")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_adapter: Callable[..., Path]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    torch.manual_seed(1)
    deberta = DebertaV2Config(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(deberta).save_pretrained(root / "deberta-base")
    windows = {"max_length": 12, "long_texts": "windows", "window_overlap": 2}
    return {
        "news": make_adapter(root / "news", labels=NEWS, seed=1),
        "newer": make_adapter(root / "newer", labels=NEWS, seed=2),
        "desk": make_adapter(root / "desk", labels=DESK, seed=3, lora={"rank": 2, "targets": "all-linear"}),
        "topics": make_adapter(root / "topics", labels=DESK, seed=4, multi_label=True, **windows),
        "deberta": make_adapter(root / "deberta", root / "deberta-base", labels=NEWS, seed=5),
    }


@pytest.fixture
def make_service(folders: dict[str, Path]) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(*names: str, start: bool = True, **limits: Any) -> Service:
        most = (
            {"max_texts": limits["queue_rows"], "stream_rows": limits["queue_rows"]} if "queue_rows" in limits else {}
        )
        service = Service(ServeSettings(**{"passes": 1} | most | limits))
        made.append(service)
        for name in names:
            service.load(name, folders[name])
        if start:
            service.start()
        return service

    before = set(threading.enumerate())
    yield make
    for gate in Gate.made:
        gate.open.set()
    Gate.made.clear()
    for service in made:
        service.drain(10)
    ended = time.monotonic() + 10
    while (left := {one for one in threading.enumerate() if one.name.startswith("newslora")} - before) and (
        time.monotonic() < ended
    ):
        time.sleep(0.01)
    assert not left  # no thread outlives its service


class Gate:
    """Stands before a lane's forward pass, and lets it through when told; notes what came in each pass."""

    made: ClassVar[list["Gate"]] = []

    def __init__(self, service: Service, name: str | None = None) -> None:
        self.lane = service._held[name or next(iter(service._held))].lane
        self.compute, self.open, self.entered = self.lane.compute, threading.Event(), threading.Event()
        self.passes: list[list[Any]] = []
        self.lane.compute = self
        self.made.append(self)

    def __call__(self, pieces: Any) -> Any:
        self.passes.append([piece.job for piece in pieces])
        self.entered.set()
        assert self.open.wait(30)
        return self.compute(pieces)


async def entered(gate: Gate) -> None:
    while not gate.entered.is_set():  # an event of threads
        await asyncio.sleep(0.005)


async def waiting(service: Service, rows: int) -> None:
    """Until so many rows are accepted and all of them tokenised."""
    lanes = service._lanes()
    while service.queue().rows != rows or any(list(lane.waiting.raw()) for lane in lanes):
        await asyncio.sleep(0.005)


def ask(service: Service, *names: str) -> Any:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(service.answer(name, TEXTS) for name in names))

    return asyncio.run(all_of_them())


def test_each_adapter_answers_as_its_own_classifier_whatever_shares_its_batch(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    service = make_service("news", "desk", "topics", "deberta")
    assert len(service._lanes()) == 2  # one encoder for three of them
    answers = ask(service, *folders.keys() - {"newer"}, "news", "news")
    for name, answered in zip([*folders.keys() - {"newer"}, "news", "news"], answers, strict=True):
        wanted = Classifier.load(folders[name], engine="padded")(TEXTS)
        for one, other in zip(answered, wanted, strict=True):
            assert one.served.name == name
            assert one.served.version == Classifier.load(folders[name]).card.weights_sha256[:12]
            assert one.prediction.labels == other.labels
            got, right = (list(p.probabilities.values()) for p in (one.prediction, other))
            assert np.abs(np.subtract(got, right)).max() < 1e-5
    assert [one.name for one in service.adapters()] == ["news", "desk", "topics", "deberta"]
    assert service.get(None).name == "news"
    assert service.get("topics").multi_label
    assert not service.problems()


def test_a_request_is_answered_by_the_version_that_accepted_it(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    service = make_service("news", batch_tokens=8)  # a text a pass, so that the replacement falls between passes
    gate = Gate(service)
    old = service.get("news")

    async def replaced_meanwhile() -> tuple[Any, Any]:
        before = asyncio.create_task(service.answer("news", TEXTS))
        await entered(gate)
        new = await asyncio.to_thread(service.load, "news", folders["newer"])
        assert service.get("news") == new != old
        after = asyncio.create_task(service.answer("news", TEXTS))
        await waiting(service, 6)
        await asyncio.to_thread(service.remove, "news")
        gate.open.set()
        with pytest.raises(UnknownAdapterError, match="There is no adapter 'news'"):
            await service.answer("news", TEXTS)
        return await before, await after

    before, after = asyncio.run(replaced_meanwhile())
    for answered, name in ((before, "news"), (after, "newer")):
        wanted = Classifier.load(folders[name])
        assert {one.served.version for one in answered} == {wanted.card.weights_sha256[:12]}
        right = wanted.predict_proba(TEXTS)
        assert np.abs([list(one.prediction.probabilities.values()) for one in answered] - right).max() < 1e-5
    assert service.adapters() == []


def test_a_request_between_two_versions_with_a_lane_each_is_answered_by_the_new(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    """Found, then replaced before it could be handed over: the old lane takes nothing any more."""
    service = make_service("deberta")
    old, find = service._held["deberta"], service._find
    service.load("deberta", folders["news"])
    old.lane._threads[1].join(10)
    stale = [old]
    service._find = lambda name: stale.pop() if stale else find(name)  # type: ignore[method-assign]
    (answered,) = asyncio.run(service.answer("deberta", TEXTS[:1]))
    assert stale == []
    assert answered.served == service.get("deberta")


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


def test_many_requests_at_once_are_each_answered_as_alone(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    names = ["news", "desk", "topics", "deberta"]
    service = make_service(*names, passes=3)
    wanted = {name: Classifier.load(folders[name], engine="padded").predict_proba(TEXTS) for name in names}

    async def ask(number: int) -> float:
        name, row = names[number % 4], number % 3
        (answered,) = await service.answer(name, [TEXTS[row]])
        assert answered.served.name == name
        got = list(answered.prediction.probabilities.values())
        return float(np.abs(np.subtract(got, wanted[name][row])).max())

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*map(ask, range(240)))

    assert max(asyncio.run(all_of_them())) < 1e-5
    assert service.queue().rows == 0


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


def test_one_request_that_cannot_be_computed_fails_alone(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service("news", "desk")
    lane = service._held["news"].lane
    compute = lane.compute

    def choke(pieces: Any) -> Any:
        if any("treaty" in piece.job.texts for piece in pieces):
            raise ValueError("choked")
        return compute(pieces)

    monkeypatch.setattr(lane, "compute", choke)

    async def together() -> list[Any]:
        requests = (service.answer("news", [text]) for text in ("peace", "treaty", "army"))
        return await asyncio.gather(*requests, return_exceptions=True)

    good, bad, also = asyncio.run(together())
    assert good[0].prediction.label
    assert also[0].prediction.label
    assert isinstance(bad, WorkerError)
    assert "choked" in str(bad)
    assert not service.problems()


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
    service = make_service("news")

    def fail(pieces: Any) -> Any:
        raise RuntimeError("no memory")

    service._held["news"].lane.compute = fail

    async def ask() -> None:
        for _ in range(3):
            with pytest.raises(WorkerError, match="no memory"):
                await service.answer(None, TEXTS)

    asyncio.run(ask())
    service._held["news"].lane._threads[1].join(10)
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


def test_encoders_and_tokenizers_are_shared_and_let_go(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    service = make_service("news", "deberta")
    with torch.inference_mode():
        for number in range(20):
            service.load(f"copy {number}", folders["desk" if number % 2 else "newer"])
    shared = {id(held.classifier.tokenizer) for name, held in service._held.items() if name != "deberta"}
    assert len(shared) == 1
    assert len(service._lanes()) == 2
    lane = service._held["news"].lane
    for name in ("news", *(f"copy {number}" for number in range(20))):
        service.remove(name)
    for thread in lane._threads:
        thread.join(10)
        assert not thread.is_alive()
    assert service.get(None).name == "deberta"
    service.load("news", folders["news"])
    assert service._held["news"].lane is not lane
    assert len(ask(service, "news")[0]) == 3


def test_nothing_is_held_of_an_adapter_that_is_refused(
    make_service: Callable[..., Service],
    make_adapter: Callable[..., Path],
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[Any]] = []

    def load_and_note(*given: Any) -> Any:
        encoder = load_encoder(*given)
        made.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr("newslora.serving.opening.load_encoder", load_and_note)
    service = make_service(start=False)
    untrained = make_adapter(tmp_path / "untrained", labels=NEWS, moved=0.0)
    (untrained / "vocab.txt").write_text("of another tokenizer")
    for _ in range(2):
        with pytest.raises(CanaryError, match="as before training"):
            service.load("news", untrained)
    gc.collect()
    assert [encoder() for encoder in made] == [None, None]
    service.load("news", folders["news"])
    with pytest.raises(CanaryError, match="as before training"):
        service.load("other", untrained)
    assert made[2]() is not None
    assert [len(held) for held in service._opener._tokenizers.values()] == [1]
    service.start()


def test_an_explainer_is_a_padded_classifier_of_the_served_version(
    make_service: Callable[..., Service], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    service = make_service(start=False)
    folder = make_adapter(tmp_path / "mine", labels=NEWS, seed=7)
    service.load("mine", folder)
    explainer = service.classifier("mine")
    assert explainer.engine.name == "padded"
    assert service.classifier(None) is explainer
    service._explaining.clear()
    make_adapter(folder, labels=NEWS, seed=8)
    with pytest.raises(RunError, match="holds another version than the one served"):
        service.classifier("mine")


def test_names_and_texts_that_cannot_be(make_service: Callable[..., Service], folders: dict[str, Path]) -> None:
    service = make_service(start=False)
    with pytest.raises(UnknownAdapterError, match="No adapter is loaded"):
        service.get(None)
    service.load("news", folders["news"])
    with pytest.raises(UnknownAdapterError, match="Did you mean 'news'"):
        service.remove("new")
    assert asyncio.run(service.answer("news", [])) == []
    with pytest.raises(SettingsError, match="Text 1 is int"):
        asyncio.run(service.answer("news", ["a", 1]))  # type: ignore[list-item]
    with pytest.raises(SettingsError, match="no validation rows to abstain by"):
        asyncio.run(service.answer("news", ["a"], abstain=0.9))
    service.start()


def test_a_trained_run_abstains_as_its_classifier_does(make_service: Callable[..., Service], planted: Path) -> None:
    service = make_service()
    served = service.load("planted", planted)
    assert served.warning is None  # its canary was there
    texts = ["treaty meets over border signs", "twice final games record and in at as", "treaty"]
    wanted = Classifier.load(planted)(texts, abstain=0.9)
    got = asyncio.run(service.answer("planted", texts, abstain=0.9))
    assert [one.prediction.answer_set for one in got] == [one.answer_set for one in wanted]
    assert served.calibrated == (Classifier.load(planted).calibration.fitted)  # type: ignore[union-attr]


def test_any_number_of_levels_takes_bounded_memory_and_each_is_made_alone(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier.load(planted)
    making, most = [0], [0]

    def make(*given: Any) -> AnswerSets:
        making[0] += 1
        most[0] = max(most[0], making[0])
        time.sleep(0.001)  # the others' chance
        made = AnswerSets(*given)
        making[0] -= 1
        return made

    monkeypatch.setattr("newslora.predict.classifier.AnswerSets", make)
    levels = [0.5 + number / 1000 for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(classifier.answer_sets, levels))
    assert [one.level for one in found] == levels
    assert most == [1]  # what warnings are silenced meanwhile is one thing of all threads
    assert len(classifier._answer_sets) == LEVELS_KEPT
    kept = next(iter(classifier._answer_sets))
    again = classifier.answer_sets(kept)
    for level in levels[:5]:
        classifier.answer_sets(level)
    assert classifier.answer_sets(kept) is again  # asked for lately

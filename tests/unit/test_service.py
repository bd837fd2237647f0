"""The service: whose version answers, what adapters share, and what is let go with them."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from service_parts import NEWS, TEXTS, Gate, entered, waiting
from service_parts import folders as folders  # a fixture
from service_parts import make_service as make_service  # a fixture

from newslora.errors import CanaryError, RunError, SettingsError, UnknownAdapterError
from newslora.model.shared import load_encoder
from newslora.predict import opening
from newslora.predict.classifier import LEVELS_KEPT, Classifier
from newslora.predict.conformal import AnswerSets
from newslora.serving.service import KEPT_FOR_EXPLAINING, Service


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


def test_what_has_an_encoder_to_itself_picks_its_device_where_none_was_asked_for(
    make_service: Callable[..., Service], folders: dict[str, Path]
) -> None:
    """An export of the CPU's own beside a GPU's adapters: what the others are computed on is not asked of it."""
    service = make_service()
    service._opener.device = torch.device("cuda:7")  # which is not here
    service.load("alone", folders["deberta"])
    assert len(ask(service, "alone")[0]) == len(TEXTS)


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


def test_an_explainer_is_a_padded_classifier_of_the_served_version_on_the_servers_device(
    make_service: Callable[..., Service],
    make_adapter: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = make_service(start=False, device="cpu")
    folder = make_adapter(tmp_path / "mine", labels=NEWS, seed=7)
    service.load("mine", folder)
    asked, pick = [], opening.pick_device
    monkeypatch.setattr(
        opening, "pick_device", lambda name: asked.append(name) or pick(name)
    )  # None is a GPU's, where one is
    explainer = service.classifier("mine")
    assert explainer.engine.name == "padded"
    assert asked == ["cpu"]
    assert service.classifier(None) is explainer
    service._explaining.clear()
    make_adapter(folder, labels=NEWS, seed=8)
    with pytest.raises(RunError, match="holds another version than the one served"):
        service.classifier("mine")


def test_the_explainers_asked_for_lately_are_kept(make_service: Callable[..., Service]) -> None:
    service = make_service("news", "newer", "desk", start=False)
    news, _ = service.classifier("news"), service.classifier("newer")
    assert service.classifier("news") is news
    desk = service.classifier("desk")
    assert service.classifier("desk") is desk
    assert service.classifier("news") is news  # newer had to go
    assert len(service._explaining) == KEPT_FOR_EXPLAINING


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


def test_a_temperature_changes_no_set_of_two_labels(planted: Path) -> None:
    """Validation rows and the text's own are divided by the same."""
    classifier = Classifier.load(planted)
    assert classifier.calibration is not None
    rows = classifier.rows(["treaty meets over border signs", "twice final games record and in at as", "treaty"])
    found = []
    for temperature in (1.0, 5.0):
        classifier.calibration = replace(classifier.calibration, temperature=temperature)
        classifier._answer_sets.clear()
        found.append([one.answer_set for one in classifier.predictions(rows, abstain=0.9)])
    assert found[0] == found[1]
    assert ("World",) in found[0]


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

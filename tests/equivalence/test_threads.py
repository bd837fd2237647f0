"""One model, several threads in it at the same time: each gets what it would get alone."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_families import TINY
from test_mixed import opened, rows_of
from transformers import AutoModel

from newslora.model import inference
from newslora.model.engine import AnyBatch
from newslora.model.inference import predict_logits
from newslora.model.packed.standing import StandIn
from newslora.predict.classifier import Classifier

FAMILIES = ["roberta", "mpnet", "modernbert", "deberta-v2"]  # packed, with a bias, through the interface, padded
THREADS, TIMES = 4, 25
# the same sums, but oneDNN may split them otherwise where other threads hold the cores
TOLERANCE = 1e-6


def assert_at_once(compute: Callable[[Sequence[int]], np.ndarray]) -> None:
    """Threads that start together ask for different rows, again and again."""
    asked = [list(range(1, 8)), [3], [0, 5, 2], [6, 6, 1, 4]]
    alone = [compute(rows) for rows in asked]
    assert max(np.abs(one[0] - alone[1][0]).max() for one in (alone[0], alone[2])) > 1e-3  # a mix-up would be seen
    together, off = threading.Barrier(THREADS), [np.inf] * THREADS

    def ask(thread: int) -> None:
        together.wait()
        off[thread] = max(np.abs(compute(asked[thread]) - alone[thread]).max() for _ in range(TIMES))

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert max(off) <= TOLERANCE, f"logits differ from those of a call alone by {max(off):.1e}"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_is_each_threads_own(family: str, tmp_path: Path, make_adapter: Callable[..., Path]) -> None:
    torch.manual_seed(2)
    AutoModel.from_config(TINY[family]).save_pretrained(tmp_path / family)
    engine = Classifier.load(make_adapter(tmp_path / "adapter", tmp_path / family, labels=("a", "b", "c"))).engine
    rows = rows_of([7, 30, 2, 12, 29, 3, 18, 44])

    def compute(chosen: Sequence[int]) -> np.ndarray:
        with torch.inference_mode():
            return engine.logits(engine.collate(rows, chosen)).numpy()

    assert_at_once(compute)


def test_a_mixed_encoder_is_each_threads_own(tmp_path: Path, make_adapter: Callable[..., Path]) -> None:
    torch.manual_seed(2)
    AutoModel.from_config(TINY["bert"]).save_pretrained(tmp_path / "bert")
    encoder, weights = opened(
        [make_adapter(tmp_path / f"{n}", tmp_path / "bert", labels=("a", "b", "c"), seed=n) for n in range(3)]
    )
    rows = rows_of([7, 30, 2, 12, 29, 3, 18, 44])

    def compute(chosen: Sequence[int]) -> np.ndarray:
        whose = [weights[(row + len(chosen)) % 3] for row in chosen]
        return torch.stack(encoder.logits_of(encoder.collate(rows, chosen), whose)).numpy()

    assert_at_once(compute)


def test_what_stands_in_goes_with_the_last_thread() -> None:
    there: list[str] = []

    class Noted(StandIn):
        def _put(self) -> None:
            there.append("put")

        def _take_back(self) -> None:
            there.append("taken back")

    stand_in = Noted()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with stand_in._standing_in("other"):
            entered.set()
            leave.wait(30)
            there.append(stand_in._brought)

    other = threading.Thread(target=stay)
    with stand_in._standing_in("mine"):
        other.start()
        entered.wait(30)
        assert stand_in._brought == "mine"
    assert there == ["put"]
    leave.set()
    other.join(30)
    assert there == ["put", "other", "taken back"]
    with stand_in._standing_in("again"):
        assert there == ["put", "other", "taken back", "put"]


def test_passes_beside_each_other_answer_every_row_in_order(
    tmp_path: Path, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    AutoModel.from_config(TINY["roberta"]).save_pretrained(tmp_path / "roberta")
    engine = Classifier.load(make_adapter(tmp_path / "adapter", tmp_path / "roberta", labels=("a", "b", "c"))).engine
    rows = rows_of([1 + (7 * place) % 40 for place in range(60)])
    monkeypatch.setattr(inference, "passes_at_once", lambda device: 1)
    wanted = predict_logits(engine, rows, batch_tokens=64)

    before, inside, threads, seen = torch.get_num_threads(), [0], set(), []
    logits, most, counting = engine.logits, [0], threading.Lock()

    def watched(batch: AnyBatch) -> torch.Tensor:
        with counting:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threads.add((threading.current_thread().name, torch.get_num_threads()))
        answer = logits(batch)
        time.sleep(0.01)
        with counting:
            inside[0] -= 1
        return answer

    monkeypatch.setattr(engine, "logits", watched)
    monkeypatch.setattr(inference, "passes_at_once", lambda device: 3)
    got = predict_logits(engine, rows, batch_tokens=64, progress=seen.append)
    assert np.abs(got - wanted).max() <= TOLERANCE
    assert sum(seen) == len(rows)
    assert most[0] == 3
    assert {name.rpartition("_")[0] for name, _ in threads} == {"newslora-pass"}
    assert {count for _, count in threads} == {max(1, before // 3)}
    assert torch.get_num_threads() == before

    def failing(batch: AnyBatch) -> torch.Tensor:
        raise ValueError("no such pass")

    monkeypatch.setattr(engine, "logits", failing)
    with pytest.raises(ValueError, match="no such pass"):
        predict_logits(engine, rows, batch_tokens=64)
    assert torch.get_num_threads() == before
    assert not [one for one in threading.enumerate() if one.name.startswith("newslora-pass")]

"""One model, several threads in it at the same time: each gets what it would get alone."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_families import TINY
from test_mixed import opened, rows_of
from transformers import AutoModel

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

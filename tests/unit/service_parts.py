"""Adapters to serve, services that leave no thread behind, and a gate before a lane's forward pass."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import AutoModel, DebertaV2Config

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

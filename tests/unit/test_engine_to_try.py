"""Where `auto` leaves out the packed engine, which is not measured on GPUs yet, whoever trains is told how to ask for it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, BertConfig, DebertaV2Config, PreTrainedConfig

import newslora
from newslora import pipeline, plan
from newslora.config import load_recipe
from newslora.model.engine import engine_to_try
from newslora.runtime import Precision
from newslora.training.watch import Silent

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ASKS = "--set train.engine=packed, and --set train.cuda_graphs=true"


class EnoughError(Exception):
    """All that is wanted is told."""


def enough(*_: Any) -> Any:
    raise EnoughError


@pytest.mark.parametrize(
    ("config", "setting", "precision", "device", "told"),
    [
        (BertConfig(), "auto", "bf16", CUDA, True),
        (AutoConfig.for_model("modernbert"), "auto", "bf16", CUDA, True),
        (BertConfig(), "auto", "bf16", CPU, False),  # takes it by itself
        (BertConfig(), "packed", "bf16", CUDA, False),
        (BertConfig(), "padded", "bf16", CUDA, False),
        (BertConfig(), "auto", "fp16", CUDA, False),  # has none
        (BertConfig(), "auto", "fp32", CUDA, False),
        (DebertaV2Config(), "auto", "bf16", CUDA, False),
        (AutoConfig.for_model("mpnet"), "auto", "bf16", CUDA, False),
    ],
    ids=lambda one: one.model_type if isinstance(one, PreTrainedConfig) else str(one),
)
def test_the_packed_engine_is_offered_where_it_could_be_had(
    config: Any, setting: str, precision: str, device: torch.device, told: bool
) -> None:
    found = engine_to_try(config, setting, Precision(precision, "test"), device)
    assert (found is not None) == told
    assert found is None or ASKS in found


@pytest.mark.parametrize(("more", "times"), [({}, 1), ({"train.engine": "padded"}, 0)])
def test_a_plan_and_a_run_on_a_gpu_tell_it_once(
    more: dict[str, Any], times: int, tiny_bert: Path, news_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is a name here: the classifier stays where it is, and no step is taken."""
    changes = {
        "model.backbone": str(tiny_bert), "data.source": str(news_file), "data.validation_rows": 8, "data.label_names": None,
        "train.precision": "bf16",
    }  # fmt: skip
    for module in (plan, pipeline):
        monkeypatch.setattr(module, "pick_device", lambda name=None: CUDA)
    monkeypatch.setattr(plan, "_time_step", lambda *_: 1.0)
    recipe = load_recipe("seed", changes | more)
    assert sum(ASKS in note for note in plan.make_plan(recipe).notes) == times

    build = pipeline.build_classifier
    monkeypatch.setattr(pipeline, "build_classifier", lambda *given: SimpleNamespace(to=lambda device: build(*given)))
    monkeypatch.setattr(pipeline, "fit", enough)
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(EnoughError):
        newslora.train(recipe, output=tmp_path / "run", watcher=Notes())
    assert any("padded engine" in note for note in notes)
    assert sum(ASKS in note for note in notes) == times

"""What is not needed costs nothing.

Frozen weights have no gradient, no state in the optimiser, and no product that would make their gradient; the last layer has
no feed-forward of tokens that the head does not read.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AlbertConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)  # fmt: skip

from newslora.config import LoraSettings, TrainSettings
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.model.engine import make_engine
from newslora.runtime import Precision
from newslora.training.step import Stepper

# no size is another's, nor a sum of others: the shape of a product says what was multiplied
HIDDEN, INNER, HEADS, RANK = 36, 68, 2, 3
SIZES = {
    "vocab_size": 60, "hidden_size": HIDDEN, "num_hidden_layers": 3, "num_attention_heads": HEADS,
    "intermediate_size": INNER, "max_position_embeddings": 66, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "roberta": RobertaConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=60, dim=HIDDEN, hidden_dim=INNER, n_layers=3, n_heads=HEADS, pad_token_id=0
    ),
}
ALL_CONFIGS = CONFIGS | {
    "bert": BertConfig(**SIZES),
    "xlm-roberta": XLMRobertaConfig(**SIZES),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "mpnet": MPNetConfig(**SIZES),
    "albert": AlbertConfig(**SIZES, embedding_size=16),
}
LENGTHS = [11, 4, 20]


def three_rows() -> Rows:
    ids = np.arange(5, 5 + sum(LENGTHS), dtype=np.int32)
    return Rows(TokenTable(ids, np.concatenate([[0], np.cumsum(LENGTHS)])), np.array([0, 1, 2]), pad_id=0)


class Products(TorchDispatchMode):
    """Shapes of all that matrix products made."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__.split(".")[0] in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "linear", "_linear_pointwise"):
            self.shapes.append(tuple(result.shape))
        return result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("targets", ["query-value", "all-linear"])
@pytest.mark.parametrize("family", CONFIGS)
def test_nothing_frozen_has_a_gradient_or_state(family: str, targets: Any, precision: Any) -> None:
    torch.manual_seed(0)
    model = random_classifier(CONFIGS[family], "abc", LoraSettings(rank=RANK, targets=targets))
    chosen = Precision(precision, "test")
    engine = make_engine(model, "packed", chosen, trains=True)
    stepper = Stepper(engine, TrainSettings(learning_rate=1e-2, warmup_steps=1), chosen, total_steps=4)
    rows = three_rows()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with Products() as products:
        for step in range(3):  # the first has a rate of 0, and B is 0 until the second
            stepper([engine.collate(rows, range(3))], step)

    trains = dict(trainable_parameters(model))
    frozen = {name: parameter for name, parameter in model.named_parameters() if name not in trains}
    assert len(frozen) > len(trains)
    assert all(parameter.grad is None and torch.equal(parameter, before[name]) for name, parameter in frozen.items())
    assert not any(torch.equal(parameter, before[name]) for name, parameter in trains.items())
    kept = {id(parameter) for parameter in trains.values()}
    assert {id(parameter) for group in stepper.optimizer.param_groups for parameter in group["params"]} == kept
    assert {id(parameter) for parameter in stepper.optimizer.state} == kept

    # query, key and value are one product, or two in the last layer; a matrix of the head is as large as one of them alone
    stacked = [(parts * HIDDEN, HIDDEN) for parts in (1, 2, 3)]
    of_weights = {shape for one in [*stacked, (INNER, HIDDEN)] for shape in (one, one[::-1])}
    of_the_head = [tuple(parameter.shape) for name, parameter in trains.items() if "lora_" not in name]
    made = sorted(shape for shape in products.shapes if shape in of_weights)
    assert made == sorted(3 * [shape for shape in of_the_head if shape in of_weights])
    assert (RANK, HIDDEN) in products.shapes  # LoRA's gradients were seen


@pytest.mark.parametrize("learns", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ALL_CONFIGS)
def test_the_last_layers_feed_forward_is_of_first_tokens_only(family: str, precision: Any, learns: bool) -> None:
    """ModernBERT, whose layers are the stock ones, has a test of its own in tests/equivalence/test_packed.py."""
    torch.manual_seed(0)
    model = random_classifier(ALL_CONFIGS[family], "abc", LoraSettings(rank=RANK, targets="query-value"))
    engine = make_engine(model, "packed", Precision(precision, "test"), trains=learns)
    batch = engine.collate(three_rows(), range(3))
    with Products() as products, torch.set_grad_enabled(learns):
        engine.logits(batch, (1, 2) if learns else None)
    whole = len(batch.packed.input_ids)
    assert whole >= sum(LENGTHS)
    raised = [shape for shape in products.shapes if shape[-1] == INNER]
    assert raised == [(whole, INNER), (whole, INNER), (len(LENGTHS), INNER)]

"""What is stepped by which settings."""

import pytest
import torch
from transformers import BertConfig

from newslora.config import LoraSettings, TrainSettings
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.training.optimizer import make_optimizer, make_scheduler


def test_matrices_decay_and_biases_do_not() -> None:
    """As the stock Trainer has it; a few steps of training move both too little to tell the groups apart."""
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = random_classifier(config, "ab", LoraSettings(rank=1))
    settings = TrainSettings(weight_decay=0.3, adam_beta1=0.7, adam_beta2=0.8, adam_epsilon=1e-3, learning_rate=0.1)
    optimizer = make_optimizer(model, settings, torch.device("cpu"))
    decay = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    trained = dict(trainable_parameters(model))
    assert len(decay) == len(trained)
    for name, parameter in trained.items():
        assert decay[id(parameter)] == (0.0 if name.endswith("bias") else 0.3), name
    assert set(decay.values()) == {0.0, 0.3}
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"], group["lr"]) == ((0.7, 0.8), 1e-3, 0.1)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [0, 0.5, 1, 0.8535534, 0.5, 0.1464466, 0]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_rates_rise_to_the_peak_and_end_with_the_last_step(schedule: str, factors: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(optimizer, TrainSettings(schedule=schedule, warmup_steps=2), 6)
    found = [scheduler.lr_lambdas[0](step) for step in range(7)]  # type: ignore[attr-defined]
    assert found == pytest.approx(factors)

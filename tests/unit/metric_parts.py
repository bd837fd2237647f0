"""Answers to score, and what holds of every score's interval."""

from typing import Any

import numpy as np

from newslora.metrics.basic import softmax

NAMES = ["a", "b", "c", "d"]


def random_answers(seed: int, rows: int = 300, labels: int = 4, skill: float = 1.5) -> tuple[Any, Any]:
    """Labels of uneven shares, and probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(labels, rows, p=np.arange(1, labels + 1) / np.arange(1, labels + 1).sum())
    logits = generator.normal(size=(rows, labels)).astype(np.float32)
    logits[np.arange(rows), truth] += skill
    return truth.astype(np.int64), softmax(logits)


def certain(predicted: list[int], labels: int) -> Any:
    return np.eye(labels)[predicted]


OVERALL = (
    "accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc", "log_loss", "brier", "ece", "auroc", "confidence",
)  # fmt: skip
SHARES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "ece", "confidence")


def rates(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything between 0 and 1."""
    found = {name: result[name] for name in SHARES}
    for name, own in result["per_class"].items():
        found |= {f"{name} {kind}": own[kind] for kind in ("precision", "recall", "f1")}
    return found


def assert_intervals_hold_their_values(result: dict[str, Any]) -> None:
    for name in OVERALL:
        if result[name]["interval"] is None:
            assert result[name]["reason"], name
        else:
            low, high = result[name]["interval"]
            assert low - 1e-12 <= result[name]["value"] <= high + 1e-12, name
    for name, rate in rates(result).items():
        if rate["value"] is None:
            assert rate["interval"] is None
        if rate["interval"] is None:
            assert rate["reason"], name
            continue
        low, high = rate["interval"]
        assert low < high, name
        assert 0 <= low <= rate["value"] + 1e-12, name
        assert rate["value"] - 1e-12 <= high <= 1, name

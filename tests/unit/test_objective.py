"""The loss is torch's and transformers' own, weights are scikit-learn's, and no step depends on how it is cut up."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from newslora.config import TrainSettings
from newslora.training.objective import Objective, describe_objective, make_objective, note_objective

ROWS, CLASSES = 60, 3
NAMES = ("World", "Sports", "Business")
LABELS = np.repeat([0, 1, 2], [45, 12, 3])
COMBINATIONS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)
PLACES = np.repeat([0, 1, 2, 3], [10, 35, 10, 5])


def balanced(kind: str, **changes: Any) -> TrainSettings:
    return TrainSettings(class_balance=kind, **changes)


def logits(rows: int = ROWS, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, CLASSES, generator=torch.Generator().manual_seed(seed))


def test_the_plain_loss_is_what_stock_transformers_computes() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=CLASSES,
    )
    indicators = torch.from_numpy(COMBINATIONS[PLACES]).float()
    for problem, targets in (
        ("single_label_classification", torch.from_numpy(LABELS)),
        ("multi_label_classification", indicators),
    ):
        config.problem_type = problem
        model = BertForSequenceClassification(config).eval()
        ids = torch.randint(0, 30, (ROWS, 7), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            stock = model(input_ids=ids, labels=targets)
            ours = Objective()(stock.logits, targets) / ROWS
        assert ours.item() == pytest.approx(stock.loss.item(), rel=1e-6)


def test_class_weights_are_scikit_learns_and_their_mean_over_rows_is_one() -> None:
    weights = make_objective(balanced("weights"), LABELS, None, CLASSES).weights
    assert weights is not None
    assert weights == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=LABELS), rel=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_weights_of_several_labels_are_scikit_learns_for_each_label_by_itself() -> None:
    weights = make_objective(balanced("weights"), PLACES, COMBINATIONS, CLASSES).weights
    indicators = COMBINATIONS[PLACES]
    assert weights is not None
    for label, column in enumerate(indicators.T):
        wanted = compute_class_weight("balanced", classes=np.array([False, True]), y=column)
        assert weights[:, label] == pytest.approx(wanted, rel=1e-6)
        assert weights[column.astype(int), label].mean() == pytest.approx(1)


def test_over_all_training_rows_the_weighted_mean_is_torchs_own() -> None:
    objective = make_objective(balanced("weights"), LABELS, None, CLASSES)
    targets = torch.from_numpy(LABELS)
    stock = cross_entropy(logits(), targets, weight=torch.from_numpy(objective.weights), reduction="mean")
    assert (objective(logits(), targets) / ROWS).item() == pytest.approx(stock.item(), rel=1e-6)


def test_weighted_labels_are_weighted_one_by_one() -> None:
    objective = make_objective(balanced("weights"), PLACES, COMBINATIONS, CLASSES)
    assert objective.weights is not None
    indicators = COMBINATIONS[PLACES]
    plain = binary_cross_entropy_with_logits(logits(), torch.from_numpy(indicators).float(), reduction="none").numpy()
    each = np.where(indicators, objective.weights[1], objective.weights[0])
    loss = objective(logits(), torch.from_numpy(indicators).float()).item()
    assert loss == pytest.approx((plain * each).sum() / CLASSES, rel=1e-5)


def test_focal_is_the_papers_formula_and_gamma_0_is_cross_entropy() -> None:
    targets = torch.from_numpy(LABELS)
    p = logits().softmax(1)[torch.arange(ROWS), targets].double()
    for gamma in (0.0, 0.5, 2.0, 5.0):
        loss = make_objective(balanced("focal", focal_gamma=gamma), LABELS, None, CLASSES)(logits(), targets)
        assert loss.item() == pytest.approx((-((1 - p) ** gamma) * p.log()).sum().item(), rel=1e-4)
    indicators = torch.from_numpy(COMBINATIONS[PLACES])
    sigmoid = logits().double().sigmoid()
    p = torch.where(indicators, sigmoid, 1 - sigmoid)
    loss = Objective(focal_gamma=2.0)(logits(), indicators.float())
    assert loss.item() == pytest.approx((-((1 - p) ** 2) * p.log()).sum().item() / CLASSES, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_has_a_finite_slope_where_the_answer_is_certain(gamma: float) -> None:
    sure = torch.tensor([[200.0, -200.0, -200.0], [-200.0, 200.0, -200.0]], requires_grad=True)
    Objective(focal_gamma=gamma)(sure, torch.tensor([0, 0])).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()
    assert sure.grad[1].abs().max() > 0.5


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(1, ROWS - 1), unique=True, max_size=8), kind=st.sampled_from(["none", "weights", "focal"])
)
@pytest.mark.parametrize("several", [False, True])
def test_a_steps_loss_does_not_depend_on_its_micro_batches(several: bool, cuts: list[int], kind: str) -> None:
    combinations, places = (COMBINATIONS, PLACES) if several else (None, LABELS)
    objective = make_objective(balanced(kind), places, combinations, CLASSES)
    targets = torch.from_numpy(places) if combinations is None else torch.from_numpy(combinations[places]).float()
    pieces = [len(part) for part in np.split(np.arange(ROWS), sorted(cuts))]
    parts = zip(logits().split(pieces), targets.split(pieces), strict=True)
    summed = sum(objective(*part).item() for part in parts)
    assert summed == pytest.approx(objective(logits(), targets).item(), rel=1e-5)


def test_a_class_without_rows_does_not_stop_the_others() -> None:
    weights = make_objective(balanced("weights"), np.array([0, 0, 0, 2]), None, CLASSES).weights
    assert weights == pytest.approx([4 / 6, 1, 2])
    every = np.array([[True, False], [True, True]])
    weights = make_objective(balanced("weights"), np.array([0, 0, 1, 1]), every, 2).weights
    assert weights is not None
    assert weights.tolist() == [[1, 1], [1, 1]]


def test_manifest_and_screen_name_the_weights() -> None:
    single = make_objective(balanced("weights"), LABELS, None, CLASSES)
    assert describe_objective(single, NAMES)["weights"]["Business"] == pytest.approx(60 / 9)
    assert note_objective(single, NAMES) == "Class weights: World 0.444, Sports 1.67, Business 6.67"
    several = make_objective(balanced("weights"), PLACES, COMBINATIONS, CLASSES)
    assert describe_objective(several, NAMES)["weights"]["Business"] == pytest.approx(
        {"absent": 60 / 110, "present": 6}
    )
    assert "World 2 / 0.667, Sports 0.667 / 2, Business 0.545 / 6" in str(note_objective(several, NAMES))
    assert "gamma 2" in str(note_objective(Objective(focal_gamma=2.0), NAMES))
    assert note_objective(Objective(), NAMES) is None

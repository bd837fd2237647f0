"""What training minimises: logits and targets -> the loss summed over rows; the step divides by its rows.

Weights are normalised to a mean of 1 over the training rows, and a step's loss is its weighted sum over its number of rows.
torch's `cross_entropy(weight=..., reduction="mean")` divides by the sum of the batch's weights instead, which agrees on all
rows together but not on a batch: there, weights cancel wherever a batch holds one class only, as most do when the other is
rare. Divided by rows, every row pulls with its own weight in whatever batch it falls, and accumulation changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.config import TrainSettings
from newslora.data.combinations import rows_of_labels

if TYPE_CHECKING:
    import torch

NAMED = 12  # labels a note names the weights of


@dataclass(frozen=True, slots=True)
class Objective:
    """Cross-entropy of (B,) label ids, or binary cross-entropy of (B, C) indicators, averaged over labels."""

    weights: NDArray[np.float32] | None = None  # (C,) by class; of several labels a row, (2, C): absent, present
    focal_gamma: float | None = None
    placed: "torch.Tensor | None" = field(default=None, compare=False, repr=False)  # the weights on the device

    def on(self, device: "torch.device") -> "Objective":
        """The same with its weights on the device: copying them at every step would wait for a GPU."""
        import torch

        return self if self.weights is None else replace(self, placed=torch.from_numpy(self.weights).to(device))

    def __call__(self, logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """(B, C) logits and the targets of the same rows -> the loss in nats, summed over rows; a scalar.

        Mean over rows and without weights, it is the loss that transformers' stock classifiers compute.
        """
        losses = self._losses(logits, targets, "sum" if self.focal_gamma is None else "none")
        if self.focal_gamma is not None:
            import torch

            # exp(-loss) is p, the probability of what is true; 1 - p is kept off 0, where a power below 1 has no slope
            wrong = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
            losses = (wrong**self.focal_gamma * losses).sum()
        return losses / targets.shape[1] if targets.is_floating_point() else losses

    def _losses(self, logits: "torch.Tensor", targets: "torch.Tensor", reduction: str) -> "torch.Tensor":
        """torch's own losses: of rows, or of each row's labels."""
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

        weights = (self if self.placed is not None else self.on(logits.device)).placed
        if not targets.is_floating_point():
            return cross_entropy(logits, targets, weight=weights, reduction=reduction)
        if weights is None:
            return binary_cross_entropy_with_logits(logits, targets, reduction=reduction)
        absent, present = weights
        return binary_cross_entropy_with_logits(
            logits, targets, weight=absent, pos_weight=present / absent, reduction=reduction
        )


def make_objective(
    settings: TrainSettings, labels: NDArray[np.int64], combinations: NDArray[np.bool_] | None, classes: int
) -> Objective:
    """The objective of `train.class_balance`.

    `weights` are scikit-learn's 'balanced' ones: rows / (classes * rows of the class), whose mean over the training rows
    is 1; where rows carry several labels, the same for present and absent of each label by itself. `focal` multiplies the
    loss by (1 - p)^gamma, p being the probability given to what is true (Lin et al. 2017, arXiv:1708.02002, without its
    alpha).

    Args:
        settings: how to balance.
        labels: (R,) of the training rows: label ids, or places in `combinations`.
        combinations: (K, C) which labels each combination holds, where rows carry several.
        classes: C.
    """
    if settings.class_balance == "focal":
        return Objective(focal_gamma=settings.focal_gamma)
    if settings.class_balance == "none":
        return Objective()
    present = rows_of_labels(labels, combinations, classes)
    if combinations is None:
        return Objective(_balanced(present).astype(np.float32))
    pairs = np.stack([len(labels) - present, present])
    return Objective(np.stack([_balanced(pair) for pair in pairs.T], axis=1).astype(np.float32))


def _balanced(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows of each class -> its weight; 1 for a class without rows, which no loss will ask for."""
    from sklearn.utils.class_weight import compute_class_weight

    weights, seen = np.ones(len(rows)), np.flatnonzero(rows)
    weights[seen] = compute_class_weight("balanced", classes=seen, y=seen, sample_weight=rows[seen])
    return weights


def describe_objective(objective: Objective, names: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of it: the loss, and each class's weight by name."""
    record: dict[str, Any] = {"focal_gamma": objective.focal_gamma, "weights": None}
    if objective.weights is not None and objective.weights.ndim == 1:
        record["weights"] = dict(zip(names, map(float, objective.weights), strict=True))
    elif objective.weights is not None:
        columns = zip(*objective.weights.tolist(), strict=True)
        record["weights"] = {
            name: {"absent": absent, "present": present} for name, (absent, present) in zip(names, columns, strict=True)
        }
    return record


def note_objective(objective: Objective, names: Sequence[str]) -> str | None:
    """A sentence for the screen; None for the plain loss."""
    if objective.focal_gamma is not None:
        return f"Focal loss, gamma {objective.focal_gamma:g}: rows already answered rightly and surely count less."
    if objective.weights is None:
        return None
    several = objective.weights.ndim == 2
    shown = [
        f"{name} {' / '.join(f'{value:.3g}' for value in np.atleast_1d(weight))}"
        for name, weight in zip(names[:NAMED], objective.weights.T, strict=False)
    ]
    more = f", and {len(names) - NAMED:,} more in manifest.json" if len(names) > NAMED else ""
    return f"Class weights{' (label absent / present)' if several else ''}: {', '.join(shown)}{more}"

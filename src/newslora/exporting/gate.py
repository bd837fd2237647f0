"""What an export must show before it is published: the same answers as its run, on rows held back from training.

fp32   every logit within 1e-5 of the run's, in units of max(1, the row's greatest logit), and the same labels. Merging LoRA
       and another runtime's order of sums move an fp32 number by some 1e-7 of its size an operation; a wrong weight, mask or
       position moves it by 1e-3 and more. A row that is farther from the run is measured from the run in fp64, which tells
       whose rounding it is: 1e-5 again, or twice as far as the run's own fp32 is from it, up to 1e-4.
int8   at least 99 % of the rows get the same labels, and at most 0.3 points of accuracy are lost.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.errors import ExportError
from newslora.metrics.basic import Logits
from newslora.metrics.intervals import Z, rate, share
from newslora.predict.classifier import Classifier

TOLERANCE = 1e-5  # of a logit, in units of max(1, the greatest of its row)
AGREEMENT = 0.99  # least share of rows with the same labels, int8
LOST = 0.003  # most accuracy lost, int8
MOST_EXCUSED = 10  # tolerances, by the run's own rounding
AT_ONCE = 8  # rows answered in fp64 before they are judged: a wrong export shows in the first
FEWEST = 100  # rows: on fewer, one is more than the percent that may differ

Given = NDArray[np.bool_]  # (R, C) which labels a row is given


def given_labels(classifier: Classifier, logits: Logits) -> Given:
    """(R, C) logits -> which labels each row is given."""
    if classifier.multi_label:
        found: Given = classifier.probabilities(logits) >= classifier.label_thresholds
        return found
    return np.asarray(logits.argmax(axis=1)[:, None] == np.arange(logits.shape[1]))


def distances(classifier: Classifier, logits: Logits) -> NDArray[np.float64]:
    """(R,) how far apart two logits are between which a row is decided; of several labels, a logit and its threshold."""
    wide = logits.astype(np.float64)
    if classifier.multi_label:
        thresholds = classifier.label_thresholds
        with np.errstate(divide="ignore"):
            return np.asarray(np.abs(wide - np.log(thresholds / (1 - thresholds))).min(axis=1))
    ordered = np.sort(wide, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def compare_exact(
    classifier: Classifier, wanted: Logits, got: Logits, in_fp64: Callable[[NDArray[np.int64]], Logits]
) -> dict[str, Any]:
    """Whether fp32 logits are the run's to rounding.

    Args:
        classifier: the run; it decides which labels logits give.
        wanted: (R, C) the run's.
        got: (R, C) the export's.
        in_fp64: places of rows -> (places, C) the run's logits computed in fp64. Asked for rows beyond the tolerance alone,
            the farthest first, until one is beyond it there too.

    Returns:
        `rows`, `largest_difference` (None where a logit is not finite), `largest_in_tolerances` (1 is all that is allowed),
        `rows_in_fp64` (so many were measured from fp64), `other_labels` and `ties`: rows with other labels, those left out
        between whose two leading logits (or a logit and its threshold) the run itself has no more than rounding; `passed`.
    """
    finite = bool(np.isfinite(got).all())
    allowed = TOLERANCE * np.maximum(1.0, np.abs(wanted).max(axis=1))
    apart = np.abs(got.astype(np.float64) - wanted).max(axis=1)
    far = np.argsort(-apart / allowed)[: int((apart > allowed).sum())] if finite else np.zeros(0, np.int64)
    asked = 0
    while asked < len(far) and (apart <= allowed)[far[:asked]].all():
        some = far[asked : asked + AT_ONCE]
        exact = in_fp64(some).astype(np.float64)
        apart[some] = np.abs(got[some] - exact).max(axis=1)
        own = np.abs(wanted[some] - exact).max(axis=1)
        allowed[some] = np.clip(2 * own, allowed[some], MOST_EXCUSED * allowed[some])
        asked += len(some)
    other = (given_labels(classifier, got) != given_labels(classifier, wanted)).any(axis=1)
    tied = distances(classifier, wanted) <= 2 * allowed
    return {
        "rows": len(wanted),
        "tolerance": TOLERANCE,
        "largest_difference": float(apart.max()) if finite else None,
        "largest_in_tolerances": float((apart / allowed).max()) if finite else None,
        "rows_in_fp64": asked,
        "other_labels": int((other & ~tied).sum()),
        "ties": int((other & tied).sum()),
        "passed": finite and bool((apart <= allowed).all()) and not bool((other & ~tied).any()),
    }


def compare_answers(classifier: Classifier, wanted: Logits, got: Logits, truth: Given) -> dict[str, Any]:
    """Whether int8 answers are close enough to the run's, on labelled rows.

    Args:
        classifier: the run; it decides which labels logits give.
        wanted: (R, C) the run's.
        got: (R, C) the export's.
        truth: (R, C) the labels rows carry.

    Returns:
        `rows`, `agreement` and the two accuracies with Wilson's intervals, `lost` (run less export) with its paired one,
        `largest_difference` of a logit, `remark` where the rows are too few to be sure, `passed`.
    """
    finite = bool(np.isfinite(got).all())
    rows = len(truth)
    run, export = given_labels(classifier, wanted), given_labels(classifier, got)
    right, still_right = (run == truth).all(axis=1), (export == truth).all(axis=1)
    agreed = int((run == export).all(axis=1).sum())
    only_run, only_export = int((right & ~still_right).sum()), int((still_right & ~right).sum())
    lost = rate((only_run - only_export) / rows, paired_interval(only_run, only_export, rows))
    found = {
        "rows": rows,
        "agreement": share(agreed, rows),
        "accuracy_run": share(int(right.sum()), rows),
        "accuracy_export": share(int(still_right.sum()), rows),
        "lost": lost,
        "only_run_right": only_run,
        "only_export_right": only_export,
        "largest_difference": float(np.abs(got - wanted).max()) if finite else None,
        "passed": finite and agreed >= AGREEMENT * rows and only_run - only_export <= LOST * rows,
    }
    found["remark"] = _too_few(found) if found["passed"] else None
    return found


def compare_odd(classifier: Classifier, wanted: Logits, got: Logits) -> dict[str, Any]:
    """Whether int8 answers texts that nobody labelled: with numbers, whichever. Arguments as in `compare_exact`."""
    finite = bool(np.isfinite(got).all())
    agreed = int((given_labels(classifier, got) == given_labels(classifier, wanted)).all(axis=1).sum())
    apart = float(np.abs(got - wanted).max()) if finite else None
    return {"rows": len(wanted), "agreement": share(agreed, len(wanted)), "largest_difference": apart, "passed": finite}


def paired_interval(only_first: int, only_second: int, rows: int) -> list[float]:
    """95 % interval of the difference of two accuracies on the same rows, first less second.

    Agresti and Min 2005 ("Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
    24:729): the plain interval with half a row added to each of the four cells. It does not shrink to nothing where no row
    differs, as a bootstrap does.
    """
    total, first, second = rows + 2, only_first + 0.5, only_second + 0.5
    middle = (first - second) / total
    half = Z * math.sqrt(first + second - (first - second) ** 2 / total) / total
    return [max(-1.0, middle - half), min(1.0, middle + half)]


def require_rows(rows: int, name: str) -> None:
    """Refuse to judge int8 by a handful of rows.

    Raises:
        ExportError: fewer than `FEWEST`.
    """
    if rows < FEWEST:
        raise ExportError(
            f"The gate of an int8 export wants at least {FEWEST} labelled rows, since 1 % of them may differ; of {name} "
            f"there are {rows:,}. Give more (--data FILE), or export to onnx (--to onnx), whose logits are compared."
        )


def refusal(what: str, checks: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Why an export was not published, in numbers; `checks`: (name of the rows, comparison)."""
    said = [f"Of {name}, {one['rows']:,} were compared: {_shown(one)}" for name, one in checks if not one["passed"]]
    return f"{what} was not published: it does not give the run's answers. {' '.join(said)}"


def _shown(one: dict[str, Any]) -> str:
    if one["largest_difference"] is None:
        return "it gives logits that are not finite."
    if "lost" in one:
        agreement, (low, high) = one["agreement"]["value"], one["agreement"]["interval"]
        return (
            f"{agreement:.2%} get the same labels (95 % interval {low:.2%} to {high:.2%}; at least {AGREEMENT:.0%} must), and "
            f"accuracy goes from {one['accuracy_run']['value']:.2%} to {one['accuracy_export']['value']:.2%}, "
            f"{100 * one['lost']['value']:.2f} points lost (at most {100 * LOST:g} may).{_undecided(one)}"
        )
    return (
        f"logits differ by up to {one['largest_difference']:.2g}, {one['largest_in_tolerances']:,.1f} times what is allowed "
        f"({TOLERANCE:g} of the row's greatest logit, or of 1), and {one['other_labels']:,} rows get other labels."
    )


def _undecided(one: dict[str, Any]) -> str:
    """What rows that refused an export leave open, where as many like them might as well have passed it."""
    (low, high), most = one["lost"]["interval"], one["agreement"]["interval"][1]
    if low > LOST or most < AGREEMENT:
        return ""
    return (
        f" But {one['rows']:,} rows cannot tell: with 95 % confidence between {100 * low:.2f} and {100 * high:.2f} points are "
        "lost, and an export as good as its run may fail by a row or two. More rows (--data FILE) tell."
    )


def _too_few(one: dict[str, Any]) -> str | None:
    """What rows that all but agreed still leave open."""
    low, lost = one["agreement"]["interval"][0], one["lost"]["interval"][1]
    if low >= AGREEMENT and lost <= LOST:
        return None
    return (
        f"Passed, but {one['rows']:,} rows cannot tell more: with 95 % confidence the agreement is at least {low:.2%} and at "
        f"most {100 * lost:.2f} points are lost, where {AGREEMENT:.0%} and {100 * LOST:g} are asked of the rows seen. More "
        "rows (--data) narrow that."
    )

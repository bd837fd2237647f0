"""Runs that are seeds of one recipe: which they are, how much they scatter, and whether recipes differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.config import in_words, setting_values
from newslora.evaluation.paired import METRICS, Scores, contrast_intervals
from newslora.metrics.intervals import CONFIDENCE_LEVEL, Bounds
from newslora.runfolder import STARTED_FROM, RunFolder

# settings that decide nothing of a run but its seed: names, places of data known by hash, limits that a finished run kept, and
# how it was worked and watched, which leaves the same bytes
NOT_PART_OF_A_RECIPE = (
    "name", "description", "train.seed", "data.source", "data.validation", "data.test", "data.max_quarantine_share",
    "data.require_all_names", "data.workers", "train.log_every_steps", "train.save_every_steps",
)  # fmt: skip
FEW = 5  # seeds below which a standard deviation is rough


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one recipe, each of another seed."""

    name: str
    members: tuple[int, ...]  # places among the runs: of each seed the first
    seeds: tuple[int, ...]  # of the members
    repeats: tuple[tuple[int, int], ...] = ()  # (place of a run left out, of the member of its seed)


def recipe_key(run: RunFolder) -> dict[str, Any]:
    """All that decides a run but its seed: settings, and data and backbone by hash, wherever their files lie."""
    flat = {key: value for key, _, value in setting_values(run.recipe()) if key not in NOT_PART_OF_A_RECIPE}
    splits, manifest = run.data()["splits"], run.manifest()
    # where it is unset, the run tells what it came to; older runs have it set
    by_length = manifest["training"].get("by_length", flat["train.group_by_length"])
    if manifest["backbone"]["sha256"] is not None:  # where the same weights lay, and by what name, decides nothing
        flat |= {"model.backbone": None, "model.revision": None}
    return flat | {
        "model.adapter": (manifest.get(STARTED_FROM) or {}).get("sha256"),
        "train.group_by_length": by_length,
        "data": {name: one["sha256"] for name, one in splits.items() if name != "test"},
        "backbone": manifest["backbone"]["sha256"],
    }


def group_runs(runs: Sequence[RunFolder]) -> list[Group]:
    """The runs by recipe, in order; a group is named after its recipe and what sets it apart from the others."""
    keys = [recipe_key(run) for run in runs]
    heads = [keys.index(key) for key in keys]  # the first run of the same recipe
    apart = [name for name in keys[0] if any(key[name] != keys[0][name] for key in keys)]
    groups = []
    for head in dict.fromkeys(heads):
        first: dict[int, int] = {}  # seed -> run
        repeats = []
        for place in (place for place, other in enumerate(heads) if other == head):
            seed = runs[place].recipe().train.seed
            if first.setdefault(seed, place) != place:
                repeats.append((place, first[seed]))
        recipe = runs[head].recipe()
        told = [recipe.name, *(_told(name, keys[head][name], recipe.model.backbone) for name in apart)]
        groups.append(Group(", ".join(told), tuple(first.values()), tuple(first), tuple(repeats)))
    return groups


def spread(group: Group, scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation (over n - 1) and range of each metric over a group's seeds."""
    found: dict[str, Any] = {"name": group.name, "runs": list(group.members), "seeds": list(group.seeds)}
    for metric in METRICS:
        values = _values(group, scores, metric)
        found[metric] = {
            "mean": float(values.mean()),
            "standard_deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
            "lowest": float(values.min()),
            "highest": float(values.max()),
        }
    return found


def compare_groups(
    groups: Sequence[Group], runs: Sequence[Scores], scores: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Each two recipes of at least two seeds: difference of their means, against other rows and against other seeds.

    `rows_interval` asks what other test rows would give (paired bootstrap of the mean over seeds), `seeds_interval` what
    other seeds would (Welch's t; scipy.stats.ttest_ind), None where no seed differs from another of its recipe. A difference
    counts as shown where both are known and neither holds zero. The level of both is corrected for the number of pairs
    (Bonferroni).
    """
    pairs = list(combinations([group for group in groups if len(group.members) > 1], 2))
    if not pairs:
        return []
    weights = np.zeros((len(pairs), len(runs)))
    for row, (first, second) in zip(weights, pairs, strict=True):
        row[list(first.members)] = 1 / len(first.members)
        row[list(second.members)] = -1 / len(second.members)
    found = []
    for (first, second), over_rows in zip(pairs, contrast_intervals(runs, weights), strict=True):
        one: dict[str, Any] = {"groups": [first.name, second.name]}
        for metric in METRICS:
            over_seeds = _welch(_values(first, scores, metric), _values(second, scores, metric), len(pairs))
            one[metric] = {
                "difference": over_rows[metric]["value"],
                "rows_interval": over_rows[metric]["interval"],
                "seeds_interval": over_seeds,
                "shown": _without_zero(over_rows[metric]["interval"]) and _without_zero(over_seeds),
            }
        found.append(one)
    return found


def few_seeds_note(groups: Sequence[Group]) -> str | None:
    """What a standard deviation of few seeds is worth: its 95 % interval under normal scatter, by chi-square."""
    from scipy.stats import chi2

    sizes = [len(group.members) for group in groups if 1 < len(group.members) < FEW]
    if not sizes:
        return None
    fewest = min(sizes)
    low, high = (float(np.sqrt((fewest - 1) / chi2.ppf(q, fewest - 1))) for q in (0.975, 0.025))
    return (
        f"{fewest} seeds tell little of the scatter between seeds: the true standard deviation may be {low:.1f} to "
        f"{high:.0f} times the one shown."
    )


def repeats_note(groups: Sequence[Group], names: Sequence[str]) -> str | None:
    """Which runs are left out of the scatter because another has their recipe and seed; None where none is."""
    said = [f"{names[place]} repeats {names[of]}" for group in groups for place, of in group.repeats]
    if not said:
        return None
    return f"{'; '.join(said)}: of the same recipe and seed, so left out of the scatter between seeds."


def _values(group: Group, scores: Sequence[Mapping[str, float]], metric: str) -> NDArray[np.float64]:
    return np.array([scores[place][metric] for place in group.members])


def _welch(first: NDArray[np.float64], second: NDArray[np.float64], pairs: int) -> Bounds:
    from scipy.stats import ttest_ind

    if np.ptp(first) == 0 and np.ptp(second) == 0:  # nothing to divide by, and a point would state certainty
        return None
    bounds = ttest_ind(first, second, equal_var=False).confidence_interval(1 - (1 - CONFIDENCE_LEVEL) / pairs)
    return [float(bounds.low), float(bounds.high)]


def _without_zero(interval: Bounds) -> bool:
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def _told(name: str, value: Any, backbone: str) -> str:
    if name == "data":
        return f"data {value['train'][:8]}"
    if name == "backbone":
        return f"backbone {backbone.rstrip('/').rpartition('/')[2]} {str(value)[:8]}"
    if name == "model.adapter" and value is not None:
        return f"adapter {value[:8]}"
    return f"{name.rpartition('.')[2]} {in_words(value)}"

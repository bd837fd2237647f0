"""Figures of an evaluation: whether confidence means what it says, and accuracy in groups of rows."""

from typing import Any

from newslora.report.drawing import Drawing, Theme, drawable, dress, fit, new_figure

WIDTH = 3.7  # inches: a phone's width, and half a page
GROUP = 0.26  # height of a group's line
NAME_WIDTH, ROWS_WIDTH = 1.15, 0.62  # left and right of the dots
FEWEST = 10  # rows of a bin that is shown: fewer say nothing


def draw_reliability(evaluation: dict[str, Any], theme: Theme) -> Drawing:
    """Accuracy against confidence by bin, after the temperature and, where the JSON has it, before; rows of each bin below."""
    figure = new_figure(WIDTH, 4.35, theme)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    figure.subplots_adjust(left=0.14, right=0.97, bottom=0.105, top=0.9, hspace=0.12)
    calibration = evaluation.get("calibration", {})
    scaled = calibration.get("temperature", 1.0) != 1.0
    upper.plot([0, 100], [0, 100], color=theme.soft, linewidth=0.8, linestyle=(0, (4, 3)), label="as right as sure")
    if scaled and "reliability" in calibration["before"]:
        points = _points(_filled(calibration["before"]["reliability"]["bins"]))
        style: dict[str, Any] = {"linewidth": 1.0, "marker": "s", "markersize": 4, "markerfacecolor": theme.paper}
        upper.plot(*points, color=theme.first, label="before the temperature", **style)
    every = evaluation["reliability"]["bins"]
    bins = _filled(every)
    x, y = _points(bins)
    away = [
        [abs(100 * one["accuracy"]["interval"][side] - at) for one, at in zip(bins, y, strict=True)] for side in (0, 1)
    ]
    upper.errorbar(
        x, y, yerr=away, color=theme.second, linewidth=1.4, marker="o", markersize=4.5, elinewidth=0.8, capsize=2,
        label="after, 95 % interval" if scaled else "95 % interval",
    )  # fmt: skip
    upper.set_ylabel("accuracy (%)", fontsize=7.5, color=theme.ink)
    upper.set_ylim(-3, 103)
    shares = [100 * one["rows"] / evaluation["rows"] for one in every]
    middles = [50 * (one["low"] + one["high"]) for one in every]
    lower.bar(middles, shares, width=[92 * (one["high"] - one["low"]) for one in every], color=theme.second, alpha=0.85)
    lower.set_ylabel("rows (%)", fontsize=7.5, color=theme.ink)
    lower.set_xlabel("confidence: probability of the answer (%)", fontsize=7.5, color=theme.ink)
    lower.set_ylim(0, 108)
    lower.set_xlim(max(0.0, 100 * min(one["low"] for one in every) - 3), 103)
    for axes in (upper, lower):
        dress(axes, theme)
    lower.set_yticks([0, 50, 100])
    upper.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=2, fontsize=7, labelcolor=theme.ink, frameon=False,
        borderaxespad=0.2, handlelength=1.6, columnspacing=1.0, labelspacing=0.3,
    )  # fmt: skip
    return Drawing(figure)


def draw_breakdown(breakdown: dict[str, Any], overall: float, theme: Theme) -> Drawing:
    """An item of an evaluation's `accuracy_by`: one dot a group with its 95 % interval, its rows beside it.

    The dashed line is `overall`, the accuracy of all rows (0 to 1).
    """
    groups = breakdown["groups"]
    height = 0.3 + GROUP * len(groups) + 0.42
    figure = new_figure(WIDTH, height, theme)
    left = 0.08 + NAME_WIDTH + 0.1
    axes = figure.add_axes(
        (left / WIDTH, 0.42 / height, (WIDTH - left - ROWS_WIDTH - 0.08) / WIDTH, GROUP * len(groups) / height)
    )
    rates = [one["accuracy"] for one in groups]
    places = range(len(groups))
    x = [100 * one["value"] for one in rates]
    away = [[abs(100 * one["interval"][side] - at) for one, at in zip(rates, x, strict=True)] for side in (0, 1)]
    axes.axvline(100 * overall, color=theme.soft, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.errorbar(
        x, list(places), xerr=away, fmt="o", color=theme.second, markersize=4.5, elinewidth=0.9, capsize=2.5, zorder=3
    )
    axes.set_ylim(len(groups) - 0.5, -0.5)
    low = min(100 * one["interval"][0] for one in rates)
    axes.set_xlim(max(0.0, low - 0.06 * (100 - low) - 0.5), 100.5 + 0.02 * (100 - low))
    axes.set_xlabel("accuracy (%)", fontsize=7.5, color=theme.ink)
    dress(axes, theme)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme.grid, linewidth=0.7)
    axes.set_yticks([])
    top = 1 - 0.16 / height
    for place, one in enumerate(groups):
        middle = (0.42 + GROUP * (len(groups) - 0.5 - place)) / height
        name = _group_name(breakdown, one, place)
        said = figure.text((left - 0.1) / WIDTH, middle, name, fontsize=7.5, color=theme.ink, ha="right", va="center")
        fit(said, NAME_WIDTH)
        rows = f"{one['rows']:,}"
        figure.text(1 - 0.08 / WIDTH, middle, rows, fontsize=7, color=theme.soft, ha="right", va="center")
    figure.text(1 - 0.08 / WIDTH, top, "rows", fontsize=7, color=theme.soft, ha="right", va="center")
    title = drawable(_title(breakdown), 0)
    said = figure.text(0.08 / WIDTH, top, title, fontsize=8, color=theme.ink, weight="bold", ha="left", va="center")
    fit(said, WIDTH - ROWS_WIDTH - 0.2)
    return Drawing(figure)


def _filled(bins: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bins of enough rows; all, where none has."""
    return [one for one in bins if one["rows"] >= FEWEST] or bins


def _points(bins: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [100 * one["confidence"] for one in bins], [100 * one["accuracy"]["value"] for one in bins]


def _title(breakdown: dict[str, Any]) -> str:
    by: str = breakdown["by"]
    words = {"length": "Tokens of the text", "confidence": "Probability of the answer"}
    return words.get(by, by) if breakdown["kind"] == "number" else by


def _group_name(breakdown: dict[str, Any], group: dict[str, Any], place: int) -> str:
    """'18 to 36', '77.47 to 90.62 %', or the group's own name."""
    if breakdown["kind"] != "number":
        return drawable(group["name"], place)
    low, high = group["low"], group["high"]
    if breakdown["by"] == "confidence":
        return f"{100 * low:.2f} to {100 * high:.2f} %"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"

"""Figure 2: loss and accuracy as training went on; and the confusion matrix of a split."""

from typing import TYPE_CHECKING, Any

from newslora.metrics.intervals import wilson
from newslora.report.drawing import Drawing, Theme, drawable, dress, fit, new_figure, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2  # inches, a page's two columns
SHARE_LABELS, COUNT_LABELS = 8, 20  # up to how many labels a cell shows its share, and its count
MOST_LABELS = 200  # of a matrix that is drawn: nobody reads more, and thousands would be more dots than a PNG may have
NAME_WIDTH = 1.3  # inches kept of a label beside the matrix
LEGEND_SIZE = 7.5  # points


def draw_training(metrics: list[dict[str, Any]], validation_rows: int | None, best_epoch: int, theme: Theme) -> Drawing:
    """Figure 2.

    Args:
        metrics: lines of metrics.jsonl.
        validation_rows: for the 95 % intervals of the accuracies; None leaves them out.
        best_epoch: the kept one.
        theme: colours.
    """
    figure = new_figure(WIDTH, 3.1, theme)
    left, right = figure.subplots(1, 2)
    # fixed margins: labels of any run stay inside, and the two panels stay aligned
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.15, top=0.76, wspace=0.24)
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    steps = [line for line in metrics if line["kind"] == "train"]
    _loss(left, steps, epochs, best_epoch, theme)
    _accuracy(right, epochs, validation_rows, best_epoch, theme)
    last = max((line["epoch"] for line in epochs), default=1)
    for axes, title in ((left, "Loss (nats a row)"), (right, "Validation accuracy (%)")):
        _finish(axes, title, last, theme)
    return Drawing(figure)


def draw_confusion(evaluation: dict[str, Any], theme: Theme) -> Drawing:
    """Counts and row shares: a row is a true label, a column a predicted one."""
    from matplotlib.patches import Rectangle

    names = [drawable(name, index) for index, name in enumerate(evaluation["labels"])]
    many = len(names)
    cell = 0.78 if many <= SHARE_LABELS else 0.46 if many <= COUNT_LABELS else max(0.12, 9.0 / many)  # inches
    side = cell * many
    size = 8.0 if cell >= 0.3 else 5.5  # points
    probe = new_figure(1, 1, theme)  # how wide the names are decides the margins
    wide = max(width_of(fit(probe.text(0, 0, name, fontsize=size), NAME_WIDTH)) for name in names)
    slanted = wide > cell - 0.08
    left, top, right = wide + 0.4, (0.75 * wide + 0.5 if slanted else 0.55), (0.75 * wide + 0.05 if slanted else 0.15)
    drawing = Drawing(new_figure(left + side + right, top + side + 0.12, theme))
    width, height = drawing.figure.get_size_inches()
    axes = drawing.figure.add_axes((left / width, 0.12 / height, side / width, side / height))
    axes.set_xlim(0, many)
    axes.set_ylim(many, 0)
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), many, many, facecolor=theme.cells[0]))
    for row, counts in enumerate(evaluation["confusion"]):
        of_row = sum(counts)
        for column, count in enumerate(counts):
            if count or many <= COUNT_LABELS:  # of many labels most cells hold nothing, and each takes its time
                _cell(drawing, axes, (row, column), int(count), of_row, many, theme)
    ink: dict[str, Any] = {"fontsize": size, "color": theme.ink}
    for index, name in enumerate(names):
        place = index + 0.5
        fit(axes.text(-0.08 / cell, place, name, ha="right", va="center", **ink), NAME_WIDTH)
        above = axes.text(place, -0.08 / cell, name, ha="left" if slanted else "center", va="bottom", **ink)
        fit(above, NAME_WIDTH)
        if slanted:
            above.set(rotation=45, rotation_mode="anchor")
    drawing.figure.text(
        (left + side / 2) / width, 1 - 0.08 / height, "predicted", va="top", ha="center", fontsize=8, color=theme.soft
    )
    middle = (0.12 + side / 2) / height
    drawing.figure.text(0.08 / width, middle, "true", rotation=90, va="center", ha="left", fontsize=8, color=theme.soft)
    return drawing


def _loss(
    axes: "Axes", steps: list[dict[str, Any]], epochs: list[dict[str, Any]], best_epoch: int, theme: Theme
) -> None:
    top = 1.06 * max((max(line["train_loss"], line["validation_loss"]) for line in epochs), default=1.0)
    if len(steps) > 1:
        losses = [line["loss"] for line in steps]
        # the first steps are far above all that follows; shown whole, they would flatten it
        shown = min(1.06 * max(losses), 2 * top)
        label = "training, as logged" + (f" (from {losses[0]:.2f})" if losses[0] > shown else "")
        axes.plot([line["epoch"] for line in steps], losses, color=theme.first, linewidth=0.7, alpha=0.8, label=label)
        top = max(top, shown)
    for place, line in enumerate(epochs):  # a mean belongs to the whole epoch, so it is drawn as long as the epoch
        span = [line["epoch"] - 1, line["epoch"]]
        name = "training, mean of an epoch" if place == 0 else None
        axes.plot(span, [line["train_loss"]] * 2, color=theme.first, linewidth=2.6, solid_capstyle="butt", label=name)
    points = [line["epoch"] for line in epochs], [line["validation_loss"] for line in epochs]
    axes.plot(
        *points,
        color=theme.second,
        linewidth=1.4,
        marker="o",
        markersize=4.5,
        label="validation",
        zorder=3,
        clip_on=False,
    )
    _mark_kept(axes, epochs, "validation_loss", 1.0, best_epoch, theme)
    axes.set_ylim(0, top)


def _accuracy(axes: "Axes", epochs: list[dict[str, Any]], rows: int | None, best_epoch: int, theme: Theme) -> None:
    x = [line["epoch"] for line in epochs]
    y = [100 * line["validation_accuracy"] for line in epochs]
    low, high = min(y, default=0.0), max(y, default=100.0)
    if rows:
        bounds = [wilson(round(value / 100 * rows), rows) for value in y]
        away = [
            [v - 100 * b[0] for v, b in zip(y, bounds, strict=True)],
            [100 * b[1] - v for v, b in zip(y, bounds, strict=True)],
        ]
        axes.errorbar(
            x, y, yerr=away, fmt="none", ecolor=theme.soft, elinewidth=0.8, capsize=2.5, label="95 % interval", zorder=1
        )
        low, high = min(100 * b[0] for b in bounds), max(100 * b[1] for b in bounds)
    axes.plot(x, y, color=theme.second, linewidth=1.4, marker="o", markersize=4.5, label="accuracy", zorder=3)
    _mark_kept(axes, epochs, "validation_accuracy", 100.0, best_epoch, theme)
    room = max(0.08 * (high - low), 0.25)
    axes.set_ylim(max(0.0, low - room), min(100.0, high) + room)  # a little above 100, so its marker is whole


def _mark_kept(
    axes: "Axes", epochs: list[dict[str, Any]], name: str, scale: float, best_epoch: int, theme: Theme
) -> None:
    """A ring on the kept epoch; its value is in the legend, where it can cover nothing."""
    for line in epochs:
        if line["epoch"] == best_epoch:
            value = f"{line[name] * scale:.2f}\N{NO-BREAK SPACE}%" if scale > 1 else f"{line[name]:.4f}"
            axes.plot(
                [best_epoch], [line[name] * scale], linestyle="none", marker="o", markersize=10, markerfacecolor="none",
                markeredgecolor=theme.third, markeredgewidth=1.3, label=f"kept: epoch {best_epoch}, {value}", zorder=4,
                clip_on=False,
            )  # fmt: skip


def _finish(axes: "Axes", title: str, last: int, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    dress(axes, theme, 7.5)
    axes.set_title(title, fontsize=8.5, color=theme.ink, weight="bold", loc="left", pad=38)
    axes.set_xlabel("epoch", fontsize=8, color=theme.ink)
    axes.set_xlim(0, last + 0.25 * max(1.0, last / 8))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncol=2, fontsize=LEGEND_SIZE, labelcolor=theme.ink,
            frameon=False, borderaxespad=0.2, handlelength=1.6, columnspacing=1.2, labelspacing=0.35,
        )  # fmt: skip


def _cell(
    drawing: Drawing, axes: "Axes", place: tuple[int, int], count: int, of_row: int, many: int, theme: Theme
) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    row, column = place
    part = count / of_row if of_row else 0.0
    low, high = (to_rgb(colour) for colour in theme.cells)
    fill = tuple(a + (b - a) * part for a, b in zip(low, high, strict=True))
    patch = Rectangle(
        (column, row), 1, 1, facecolor=fill, edgecolor=theme.paper, linewidth=1.2 if many <= COUNT_LABELS else 0
    )
    axes.add_patch(patch)
    if many > COUNT_LABELS:
        return
    ink = "#ffffff" if _luminance(fill) < 0.2 else "#14171a"
    shares = many <= SHARE_LABELS and of_row > 0
    words = [(f"{count:,}", 0.4 if shares else 0.5, 9.0 if many <= SHARE_LABELS else 6.5, row == column and of_row > 0)]
    if shares:
        words.append((f"{100 * part:.1f}\N{NO-BREAK SPACE}%", 0.66, 7.0, False))
    for text, down, size, bold in words:
        weight = "bold" if bold else "normal"
        made = axes.text(
            column + 0.5, row + down, text, fontsize=size, color=ink, weight=weight, ha="center", va="center"
        )
        drawing.contained.append((fit(made, 0.72 if many <= SHARE_LABELS else 0.42), patch))


def _luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance as WCAG 2.1 defines it; below 0.2 white text has more contrast than black."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

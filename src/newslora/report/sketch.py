"""The pieces the architecture figure is drawn with: boxes, matrices with their low-rank branches, wires and text.

Lengths are inches from the top left corner of the figure.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from newslora.report.drawing import Drawing, Theme, fit, width_of
from newslora.report.layer import TIMES, Projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from matplotlib.text import Text

UNIT_HEIGHT = 0.62  # a projection, and its two low-rank matrices over each other
BRANCH = 0.68  # width of A and B, narrower where three projections share a row
BRANCH_GAP = 0.06  # between A and B


@dataclass(slots=True)
class Sketch:
    """A figure while it is drawn: one axes in inches, y downwards."""

    theme: Theme
    drawing: Drawing
    axes: "Axes"

    def unit(
        self, middle: float, y: float, wide: float, projection: Projection, branch: float = BRANCH
    ) -> tuple[list[float], float]:
        """A frozen matrix and, if adapted, A above B beside it; returns where x enters and where the sum leaves."""
        gap, size = 0.05, _times(projection.rows, projection.columns)
        if projection.rank is None:
            self.matrix(middle - wide / 2, y, wide, UNIT_HEIGHT, "frozen", projection.name, size)
            self.wire([(middle, y + UNIT_HEIGHT), (middle, y + UNIT_HEIGHT + 0.17)])
            return [middle], middle
        left = middle - (wide + gap + branch) / 2
        right = left + wide + gap
        self.matrix(left, y, wide, UNIT_HEIGHT, "frozen", projection.name, size)
        low = (UNIT_HEIGHT - BRANCH_GAP) / 2
        self.matrix(right, y, branch, low, "trained", "", f"A {_times(projection.rank, projection.columns)}")
        self.matrix(
            right, y + low + BRANCH_GAP, branch, low, "trained", "", f"B {_times(projection.rows, projection.rank)}"
        )
        self.wire([(right + branch / 2, y + low), (right + branch / 2, y + low + BRANCH_GAP)])
        out, plus = left + wide / 2, y + UNIT_HEIGHT + 0.1
        self.wire([(out, y + UNIT_HEIGHT), (out, plus + 0.07)])
        self.wire([(right + branch / 2, y + UNIT_HEIGHT), (right + branch / 2, plus), (out, plus)])
        self.plus(out, plus)
        return [out, right + branch / 2], out

    def matrix(self, x: float, y: float, wide: float, high: float, kind: str, name: str, size: str) -> None:
        patch = self.box(x, y, wide, high, kind)
        middle = y + high / 2
        if name:
            fit(self.text(x + wide / 2, middle - 0.08, name, 7, bold=True, within=patch), wide - 0.06)
            middle += 0.09
        fit(self.text(x + wide / 2, middle, size, 6.2, within=patch), wide - 0.06)

    def bar(self, middle: float, y: float, wide: float, words: str) -> float:
        patch = self.box(middle - wide / 2, y, wide, 0.22, "data")
        self.text(middle, y + 0.11, words, 6.5, within=patch)
        return y + 0.22

    def box(self, x: float, y: float, wide: float, high: float, kind: str) -> "Patch":
        """A shape whose fill, border and hatching say what it is."""
        from matplotlib.patches import FancyBboxPatch

        t = self.theme
        fill, edge, line, style = {
            "data": (t.paper, t.soft, 0.7, "-"),
            "frozen": (t.frozen, t.frozen_edge, 0.7, "-"),
            "trained": (t.trained, t.trained_edge, 1.5, "-"),
            "panel": (t.paper, t.soft, 0.7, (0, (3, 3))),
            "group": (t.paper, t.grid, 1.0, "-"),
        }[kind]
        round_ = f"round,pad=0,rounding_size={0.08 if kind == 'data' else 0.03}"
        if kind == "trained":  # hatching under its own border, in a colour that text stays legible on
            self.axes.add_patch(
                FancyBboxPatch(
                    (x, y), wide, high, boxstyle=round_, facecolor=fill, edgecolor=t.hatch, hatch="////", linewidth=0
                )
            )
            fill = "none"
        depth = {"panel": 0.3, "group": 0.5}.get(kind, 1.0)  # wires, at 0.9, run over frames and under boxes
        patch = FancyBboxPatch((x, y), wide, high, boxstyle=round_, facecolor=fill, edgecolor=edge)
        patch.set(linewidth=line, linestyle=style, zorder=depth)
        self.axes.add_patch(patch)
        return patch

    def text(
        self, x: float, y: float, words: str, size: float, *, bold: bool = False, align: str = "center",
        slanted: bool = False, within: "Patch | None" = None,
    ) -> "Text":  # fmt: skip
        text = self.axes.text(
            x, y, words, fontsize=size, color=self.theme.ink, ha=align, va="center_baseline",
            weight="bold" if bold else "normal", style="oblique" if slanted else "normal",
        )  # fmt: skip
        if within is not None:
            self.drawing.contained.append((text, within))
        return text

    def line(self, patch: "Patch", x: float, width: float, y: float, text: str, right: str, bold: bool) -> None:
        """Text to the left and a number to the right, both inside; the text gives way."""
        taken = 0.0
        if right:
            number = self.text(x + width - 0.08, y, right, 6.5, bold=bold, align="right", within=patch)
            taken = width_of(number) + 0.08
        fit(
            self.text(x + 0.08, y, text, 7.5 if bold else 6.5, bold=bold, align="left", within=patch),
            width - 0.16 - taken,
        )

    def wire(self, points: list[tuple[float, float]]) -> None:
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=self.theme.soft, linewidth=0.8, solid_joinstyle="round", zorder=0.9)

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        arrow = {"arrowstyle": "-|>,head_width=0.12,head_length=0.22", "color": self.theme.soft, "linewidth": 0.8}
        self.axes.annotate("", end, start, arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0})

    def plus(self, x: float, y: float) -> None:
        from matplotlib.patches import Circle

        t = self.theme
        self.axes.add_patch(Circle((x, y), 0.06, facecolor=t.paper, edgecolor=t.soft, linewidth=0.8, zorder=2))
        for dx, dy in ((0.035, 0.0), (0.0, 0.035)):
            self.axes.plot([x - dx, x + dx], [y - dy, y + dy], color=t.soft, linewidth=0.8, zorder=3)


def _times(rows: int, columns: int) -> str:
    return f"{rows}{TIMES}{columns}"

"""Colours, text that fits, and figures -> files: what the three kinds of figure share.

Every figure is drawn twice, on light and on dark paper, by the same function. Text is drawn with the font matplotlib
carries and stored as outlines, so a figure looks the same, and has the same bytes, on every machine.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.text import Text

PNG_DPI = 200
SMALLEST_TEXT = 5.5  # points; below this, text is cut rather than shrunk
_SALT = "newslora"  # ids inside an SVG derive from it instead of from chance


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one paper. Pairs that must be told apart also differ in lightness, marker or hatching."""

    name: str
    paper: str
    ink: str
    soft: str  # secondary text and arrows
    grid: str
    frozen: str
    frozen_edge: str
    trained: str
    trained_edge: str
    hatch: str
    first: str  # training curves
    second: str  # validation curves
    third: str  # the kept epoch
    cells: tuple[str, str]  # confusion matrix: share 0 and share 1


# hues from Okabe and Ito's colour-blind-safe set, lightened on dark paper
LIGHT = Theme(
    "light", paper="#ffffff", ink="#1a1d21", soft="#50575f", grid="#dfe3e7", frozen="#e9edf1", frozen_edge="#8a949e",
    trained="#fde3b5", trained_edge="#a85b00", hatch="#f0b95e", first="#5aa9dc", second="#b04a00", third="#1a1d21",
    cells=("#f4f7fa", "#0b4f86"),
)  # fmt: skip
DARK = Theme(
    "dark", paper="#171a1e", ink="#eceff2", soft="#b0b8c0", grid="#353b42", frozen="#2a3037", frozen_edge="#77828d",
    trained="#5a3a0c", trained_edge="#f5b041", hatch="#7d5417", first="#56b4e9", second="#ff9a4d", third="#eceff2",
    cells=("#20252b", "#8cc8f2"),
)  # fmt: skip


@dataclass(slots=True)
class Drawing:
    """A figure and what the tests look at: which text was meant to stay inside which shape."""

    figure: "Figure"
    contained: list[tuple["Text", "Patch"]] = field(default_factory=list)


Draw = Callable[[Theme], Drawing]


@dataclass(frozen=True, slots=True)
class Written:
    """One figure as files in the run, and the SVGs for embedding."""

    name: str
    light: bytes
    dark: bytes


@contextlib.contextmanager
def plain_matplotlib() -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's matplotlibrc says; the user's are back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": ["DejaVu Sans"],
                "svg.hashsalt": _SALT,
                "svg.fonttype": "path",
                "hatch.linewidth": 0.6,
                "text.parse_math": False,  # a label may hold a dollar sign
            }
        )
        yield


def write_figure(folder: Path, name: str, draw: Draw) -> Written:
    """Draw on light and on dark paper; write NAME.svg, NAME.png and NAME-dark.svg into `folder`.

    Raises:
        StorageError: the disk refuses.
    """
    with plain_matplotlib():
        figure = draw(LIGHT).figure
        light, png = _svg(figure), _png(figure)
        dark = _svg(draw(DARK).figure)
    for suffix, content in ((".svg", light), (".png", png), ("-dark.svg", dark)):
        with files.atomic_path(folder / f"{name}{suffix}") as temporary:
            temporary.write_bytes(content)
    return Written(name, light, dark)


def new_figure(width: float, height: float, theme: Theme) -> "Figure":
    """An empty figure of that size in inches, tied to a canvas that can measure text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=PNG_DPI, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: "Axes", theme: Theme, label_size: float = 7) -> None:
    """Two spines, lines across at the ticks, and the theme's colours; labels of ticks in points."""
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.soft, labelcolor=theme.ink, labelsize=label_size, length=3)
    axes.grid(axis="y", color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.soft)


def width_of(text: "Text") -> float:
    """Its drawn width in inches."""
    figure = text.get_figure(root=True)
    assert figure is not None
    return float(text.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi)  # type: ignore[attr-defined]


def fit(text: "Text", width: float) -> "Text":
    """Shrink the text to at most `width` inches, down to `SMALLEST_TEXT`; cut it with an ellipsis if that is not enough."""
    for _ in range(3):  # hinting makes the width not quite proportional to the size
        wide = width_of(text)
        if wide > width:
            text.set_fontsize(max(SMALLEST_TEXT, float(text.get_fontsize()) * width / wide * 0.99))
    words = text.get_text()
    while words and width_of(text) > width:
        words = words[: max(0, min(len(words) - 1, int(len(words) * width / width_of(text))))]
        text.set_text(words.rstrip() + "…")
    return text


def drawable(label: str, index: int) -> str:
    """The label on one line, or its number where matplotlib's font lacks a letter of it."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    letters = _letters()
    return plain if plain and all(ord(c) in letters for c in plain) else f"label {index}"


@functools.cache
def _letters() -> frozenset[int]:
    """Code points the bundled font can draw, right-to-left scripts left out: matplotlib would draw those backwards."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    codes = get_font(findfont(FontProperties("DejaVu Sans"))).get_charmap()
    return frozenset(code for code in codes if not 0x590 <= code < 0x900)


def _svg(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.BytesIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no date: same run, same bytes
    FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)  # type: ignore[no-untyped-call]
    return stream.getvalue()


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(PNG_DPI)
    canvas.print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return stream.getvalue()

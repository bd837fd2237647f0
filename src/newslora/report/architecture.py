"""Figure 1: the classifier as built, drawn from the manifest's `model` facts.

Left, the whole path from tokens to labels; right, one encoder layer, with the low-rank branches A and B beside exactly
the projections that have them. Lengths are inches from the top left corner of the figure.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from newslora.report.drawing import Drawing, Theme, drawable, fit, new_figure, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from matplotlib.text import Text

WIDTH = 7.2
LEFT, LEFT_WIDTH = 0.1, 2.45
PANEL, PANEL_WIDTH = 2.95, 4.15
TOP = 0.1
UNIT_HEIGHT = 0.62  # a projection, and its two low-rank matrices over each other
BRANCH = 0.68  # width of A and B, narrower where three projections share a row
BRANCH_GAP = 0.06  # between A and B
ROW = 0.17  # a line of text in a box
_TIMES = "\N{THIN SPACE}\N{MULTIPLICATION SIGN}\N{THIN SPACE}"


@dataclass(frozen=True, slots=True)
class Names:
    """What a family calls the projections of a layer, as suffixes of module names."""

    inputs: tuple[str, ...]  # query, key and value; one name where one matrix holds all three
    output: str
    up: str
    down: str
    gated: bool = False  # `up` makes twice the width, one half gating the other
    norm_first: bool = False
    pooled: str = "First token"


_BERT = Names(("query", "key", "value"), "attention.output.dense", "intermediate.dense", "output.dense")

# model_type -> names; a test holds it to newslora.model.families
NAMES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": Names(("q_lin", "k_lin", "v_lin"), "out_lin", "lin1", "lin2"),
    "deberta-v2": Names(
        ("query_proj", "key_proj", "value_proj"), "attention.output.dense", "intermediate.dense", "output.dense"
    ),
    "mpnet": Names(("attn.q", "attn.k", "attn.v"), "attn.o", "intermediate.dense", "output.dense"),
    "albert": Names(("query", "key", "value"), "attention.dense", "ffn", "ffn_output"),
    # a checkpoint's configuration says whether the first token or the mean is read
    "modernbert": Names(
        ("attn.Wqkv",), "attn.Wo", "mlp.Wi", "mlp.Wo", gated=True, norm_first=True, pooled="First token or mean"
    ),
}


@dataclass(frozen=True, slots=True)
class Projection:
    """One weight matrix of a layer."""

    name: str
    rows: int  # out
    columns: int  # in
    rank: int | None  # None: not adapted

    @property
    def weights(self) -> int:
        return self.rows * self.columns

    @property
    def lora(self) -> int:
        """Trained parameters beside it."""
        return (self.rank or 0) * (self.rows + self.columns)


@dataclass(frozen=True, slots=True)
class Layer:
    """The matrices of one encoder layer, in the order text flows through them."""

    names: Names
    inputs: tuple[Projection, ...]
    output: Projection
    up: Projection
    down: Projection

    @property
    def projections(self) -> tuple[Projection, ...]:
        return (*self.inputs, self.output, self.up, self.down)


def layer_of(model: dict[str, Any]) -> Layer:
    """The manifest's facts -> one layer. Adapted names may say more than ours: 'attention.self.query'."""
    names = NAMES[model["model_type"]]
    hidden, inner = model["hidden_size"], model["intermediate_size"]
    adapted = [item["name"] for item in model["adapted"]]

    def projection(name: str, rows: int, columns: int) -> Projection:
        has = any(one == name or one.endswith(f".{name}") for one in adapted)
        return Projection(name, rows, columns, model["rank"] if has else None)

    wide = hidden if len(names.inputs) == 3 else 3 * hidden
    return Layer(
        names,
        tuple(projection(name, wide, hidden) for name in names.inputs),
        projection(names.output, hidden, hidden),
        projection(names.up, inner * (2 if names.gated else 1), hidden),
        projection(names.down, hidden, inner),
    )


def is_shared(model: dict[str, Any]) -> bool:
    """Whether one layer's weights serve every depth (ALBERT): then its LoRA exists once."""
    adapted = sum(projection.rank is not None for projection in layer_of(model).projections)
    return bool(model["layers"] > 1 and model["adapted_modules"] == adapted)


def head_modules(model: dict[str, Any]) -> list[tuple[str, list[int], int]]:
    """(module, weight shape, parameters with bias) of each trained module above the encoder."""
    modules: dict[str, tuple[list[int], int]] = {}
    for item in model["head"]:
        name = item["name"].rpartition(".")[0]
        shape, count = modules.get(name, ([], 0))
        modules[name] = (max(shape, list(item["shape"]), key=len), count + item["parameters"])
    return [(name, shape, count) for name, (shape, count) in modules.items()]


def share(model: dict[str, Any]) -> str:
    """'741,124 of 124,796,164 parameters trained (0.59 %)'."""
    counts = model["parameters"]
    return (
        f"{counts['trainable']:,} of {counts['total']:,} parameters trained "
        f"({100 * counts['trainable'] / counts['total']:.2f}\N{NO-BREAK SPACE}%)"
    )


def caption(model: dict[str, Any]) -> str:
    """The figure in words, for readers and for screen readers."""
    counts = model["parameters"]
    adapted = [projection.name for projection in layer_of(model).projections if projection.rank is not None]
    where = "in the one layer that serves every depth" if is_shared(model) else f"in each of {model['layers']} layers"
    return (
        f"{model['class']} as built: {share(model)}. {counts['lora']:,} of them are low-rank branches "
        f"(rank {model['rank']}, alpha {model['alpha']:g}, dropout {model['dropout']:g}) beside {_listed(adapted)} "
        f"{where}, {model['adapted_modules']} modules in all; {counts['head']:,} are the head. The other "
        f"{counts['embeddings'] + counts['encoder']:,} stay as pretrained. Matrices are given as output{_TIMES}input; "
        "a layer's counts leave out biases and norms."
    )


def draw_architecture(model: dict[str, Any], theme: Theme) -> Drawing:
    """Figure 1."""
    sketch = _Sketch.empty(model, theme)
    sketch.path()
    sketch.layer()
    sketch.legend()
    return sketch.drawing


@dataclass(slots=True)
class _Sketch:
    """The figure while it is drawn; one axes in inches, y downwards."""

    model: dict[str, Any]
    theme: Theme
    drawing: Drawing
    axes: "Axes"
    height: float
    shape: Layer
    encoder: tuple[float, float] = field(default=(0.0, 0.0))  # top and bottom of the encoder box

    @classmethod
    def empty(cls, model: dict[str, Any], theme: Theme) -> "_Sketch":
        shape = layer_of(model)
        height = TOP + _panel_height(shape) + 0.45
        figure = new_figure(WIDTH, height, theme)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        return cls(model, theme, Drawing(figure), axes, height, shape)

    # the left column: the whole path

    def path(self) -> None:
        model, counts = self.model, self.model["parameters"]
        head = head_modules(model)
        labels = [drawable(name, index) for index, name in enumerate(model["labels"])]
        copies = "1 shared encoder layer" if is_shared(model) else f"{model['layers']} encoder layers"
        boxes: list[tuple[str, float]] = [("tokens", 0.44), ("embeddings", 0.44), ("encoder", 0.86), ("pooled", 0.44)]
        boxes += [("head", 0.3 + ROW * len(head)), ("labels", 0.44)]
        room = _panel_height(self.shape) - sum(height for _, height in boxes)
        gap = room / (len(boxes) - 1)
        y = TOP
        for place, (kind, height) in enumerate(boxes):
            if place:
                self.arrow((LEFT + LEFT_WIDTH / 2, y - gap), (LEFT + LEFT_WIDTH / 2, y))
            if kind == "tokens":
                self.card(y, height, "data", "Tokens", "", [("one text as word pieces", "")])
            elif kind == "embeddings":
                lines = [(f"{model['vocabulary']:,} word pieces, positions", "frozen")]
                self.card(y, height, "frozen", "Embeddings", f"{counts['embeddings']:,}", lines)
            elif kind == "encoder":
                self.encoder = (y, y + height)
                self.card(
                    y,
                    height,
                    "frozen",
                    copies,
                    f"{counts['encoder']:,}",
                    [(f"width {model['hidden_size']:,}", "frozen")],
                )
                self.strip(y + height - 0.38, f"LoRA in {model['adapted_modules']} modules", f"{counts['lora']:,}")
            elif kind == "pooled":
                numbers = [(f"{model['hidden_size']:,} numbers", "")]
                self.card(y, height, "data", f"{self.shape.names.pooled}, last layer", "", numbers)
            elif kind == "head":
                rows = [(f"{name}  {_shape(size)}", f"{count:,}") for name, size, count in head]
                self.card(y, height, "trained", "Head", f"{counts['head']:,}", rows)
            else:
                self.card(y, height, "data", f"{len(labels)} labels", "", [(" · ".join(labels), "")])
            y += height + gap

    def card(self, y: float, height: float, kind: str, title: str, count: str, lines: list[tuple[str, str]]) -> None:
        """A box of the left column: title and count, then lines of (text, right-hand text)."""
        patch = self.box(LEFT, y, LEFT_WIDTH, height, kind)
        for place, (text, right) in enumerate([(title, count), *lines]):
            self.line(patch, LEFT, LEFT_WIDTH, y + 0.14 + place * ROW, text, right, bold=place == 0)

    def strip(self, y: float, text: str, right: str) -> None:
        patch = self.box(LEFT + 0.08, y, LEFT_WIDTH - 0.16, 0.28, "trained")
        self.line(patch, LEFT + 0.08, LEFT_WIDTH - 0.16, y + 0.14, text, right, bold=True)

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

    # the right panel: one layer

    def layer(self) -> None:
        theme, shape = self.theme, self.shape
        height = _panel_height(shape)
        self.box(PANEL, TOP, PANEL_WIDTH, height, "panel")
        for edge, corner in zip(self.encoder, (TOP, TOP + height), strict=True):  # the panel enlarges the encoder box
            self.axes.plot(
                [LEFT + LEFT_WIDTH, PANEL], [edge, corner], color=theme.soft, linewidth=0.7, linestyle=(0, (3, 3))
            )
        depth = self.model["layers"]
        title = (
            f"The encoder layer, applied {depth} times" if is_shared(self.model) else f"One of {depth} encoder layers"
        )
        self.text(PANEL + 0.1, TOP + 0.16, title, 7.5, bold=True, align="left")
        scale = f"Wx + ({self.model['alpha']:g} / {self.model['rank']}) BAx"
        self.text(PANEL + PANEL_WIDTH - 0.1, TOP + 0.16, scale, 6.5, align="right", slanted=True)
        y = TOP + 0.34
        first = shape.names.norm_first
        steps = (
            ["norm", "attention", "add", "norm", "forward", "add"]
            if first
            else ["attention", "add-norm", "forward", "add-norm"]
        )
        centre = PANEL + PANEL_WIDTH / 2
        for place, step in enumerate(steps):
            if place:
                self.arrow((centre, y), (centre, y + 0.14))
                y += 0.14
            if step == "attention":
                y = self.attention(y)
            elif step == "forward":
                y = self.forward(y)
            else:
                words = {"norm": "layer norm", "add": "add residual", "add-norm": "add residual, layer norm"}[step]
                y = self.bar(centre, y, 1.7, words)

    def attention(self, y: float) -> float:
        """The self-attention group from `y` downwards; returns its bottom."""
        shape = self.shape
        bottom = y + _attention_height()
        self.group(y, bottom, f"Self-attention, {self.model['attention_heads']} heads", (*shape.inputs, shape.output))
        centre = PANEL + PANEL_WIDTH / 2
        rail, top = y + 0.3, y + 0.38
        many = len(shape.inputs)
        wide, branch = (0.62, 0.58) if many == 3 else (1.3, BRANCH)
        step = (PANEL_WIDTH - 0.24) / many
        middles = [PANEL + 0.12 + step * (place + 0.5) for place in range(many)]
        bar = top + UNIT_HEIGHT + 0.3
        taps: list[float] = []
        for middle, projection in zip(middles, shape.inputs, strict=True):
            entries, leave = self.unit(middle, top, wide, projection, branch)
            for entry in entries:
                self.arrow((entry, rail), (entry, top))
            taps += entries
            self.arrow((leave, top + UNIT_HEIGHT + 0.17), (leave, bar))
        self.wire([(centre, y), (centre, rail)])
        self.wire([(min(*taps, centre), rail), (max(*taps, centre), rail)])
        self.bar(centre, bar, PANEL_WIDTH - 0.3, "softmax(query · key) · value, per head")
        top = bar + 0.22 + 0.22
        entries, leave = self.unit(centre, top, 1.5, shape.output)
        rail = top - 0.12
        self.wire([(centre, bar + 0.22), (centre, rail)])
        self.wire([(min(*entries, centre), rail), (max(*entries, centre), rail)])
        for entry in entries:
            self.arrow((entry, rail), (entry, top))
        self.wire(
            [(leave, top + UNIT_HEIGHT + 0.17), (leave, bottom - 0.08), (centre, bottom - 0.08), (centre, bottom)]
        )
        return bottom

    def forward(self, y: float) -> float:
        """The feed-forward group, its two matrices side by side."""
        shape = self.shape
        bottom = y + _forward_height()
        self.group(y, bottom, "Feed-forward, gated" if shape.names.gated else "Feed-forward", (shape.up, shape.down))
        rail, top = y + 0.3, y + 0.38
        centre, foot = PANEL + PANEL_WIDTH / 2, top + UNIT_HEIGHT
        half = (PANEL_WIDTH - 0.24) / 4
        entries, leave = self.unit(centre - half, top, 0.9, shape.up)
        later, last = self.unit(centre + half, top, 0.9, shape.down)
        self.wire([(centre, y), (centre, rail), (min(entries), rail)])
        lane = centre + 0.1  # out of the first, up between the two, into the second
        self.wire([(leave, foot + 0.17), (leave, foot + 0.21), (lane, foot + 0.21), (lane, rail), (max(later), rail)])
        for entry in (*entries, *later):
            self.arrow((entry, rail), (entry, top))
        self.wire([(last, foot + 0.17), (last, foot + 0.29), (centre, foot + 0.29), (centre, bottom)])
        return bottom

    def unit(
        self, middle: float, y: float, wide: float, projection: Projection, branch: float = BRANCH
    ) -> tuple[list[float], float]:
        """A frozen matrix and, if adapted, A above B beside it; returns where x enters and where the sum leaves."""
        gap = 0.05
        if projection.rank is None:
            self.matrix(
                middle - wide / 2,
                y,
                wide,
                UNIT_HEIGHT,
                "frozen",
                projection.name,
                _times(projection.rows, projection.columns),
            )
            self.wire([(middle, y + UNIT_HEIGHT), (middle, y + UNIT_HEIGHT + 0.17)])
            return [middle], middle
        left = middle - (wide + gap + branch) / 2
        right = left + wide + gap
        self.matrix(left, y, wide, UNIT_HEIGHT, "frozen", projection.name, _times(projection.rows, projection.columns))
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

    # pieces

    def matrix(self, x: float, y: float, wide: float, high: float, kind: str, name: str, size: str) -> None:
        patch = self.box(x, y, wide, high, kind)
        middle = y + high / 2
        if name:
            fit(self.text(x + wide / 2, middle - 0.08, name, 7, bold=True, within=patch), wide - 0.06)
            middle += 0.09
        fit(self.text(x + wide / 2, middle, size, 6.2, within=patch), wide - 0.06)

    def group(self, y: float, bottom: float, title: str, matrices: tuple[Projection, ...]) -> None:
        frozen, trained = sum(one.weights for one in matrices), sum(one.lora for one in matrices)
        counts = f"{frozen:,} frozen" + (f", {trained:,} trained" if trained else "")
        patch = self.box(PANEL + 0.08, y, PANEL_WIDTH - 0.16, bottom - y, "group")
        self.text(PANEL + 0.16, y + 0.13, title, 7, bold=True, align="left", within=patch)
        number = self.text(PANEL + PANEL_WIDTH - 0.16, y + 0.13, counts, 6.5, align="right", within=patch)
        fit(number, PANEL_WIDTH / 2 - 0.24)  # the other half is the title's, and x enters between them

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

    def legend(self) -> None:
        y = self.height - 0.22
        x = LEFT
        for kind, words in (("frozen", "frozen, as pretrained"), ("trained", "trained")):
            self.box(x, y - 0.07, 0.26, 0.14, kind)
            x += 0.33 + width_of(self.text(x + 0.33, y, words, 6.5, align="left")) + 0.18
        self.text(WIDTH - LEFT, y, share(self.model), 7, bold=True, align="right")


def _attention_height() -> float:
    return 0.38 + UNIT_HEIGHT + 0.3 + 0.22 + 0.22 + UNIT_HEIGHT + 0.31


def _forward_height() -> float:
    return 0.38 + UNIT_HEIGHT + 0.37


def _panel_height(shape: Layer) -> float:
    bars = 4 if shape.names.norm_first else 2
    return 0.34 + _attention_height() + _forward_height() + bars * 0.22 + (bars + 1) * 0.14 + 0.1


def _times(rows: int, columns: int) -> str:
    return f"{rows}{_TIMES}{columns}"


def _shape(size: list[int]) -> str:
    return _TIMES.join(str(number) for number in size)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

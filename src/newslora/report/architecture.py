"""Figure 1: the classifier as built, drawn from the manifest's `model` facts.

Left, the whole path from tokens to labels; right, one encoder layer, with the low-rank branches A and B beside exactly
the projections that have them. Lengths are inches from the top left corner of the figure.
"""

from dataclasses import dataclass, field
from typing import Any

from newslora.report.drawing import Drawing, Theme, drawable, fit, new_figure, width_of
from newslora.report.layer import TIMES, Layer, Projection, head_modules, is_shared, layer_of, share
from newslora.report.sketch import BRANCH, UNIT_HEIGHT, Sketch

WIDTH = 7.2
LEFT, LEFT_WIDTH = 0.1, 2.45
PANEL, PANEL_WIDTH = 2.95, 4.15
TOP = 0.1
ROW = 0.17  # a line of text in a box


def draw_architecture(model: dict[str, Any], theme: Theme) -> Drawing:
    """Figure 1."""
    sketch = _Figure.empty(model, theme)
    sketch.path()
    sketch.layer()
    sketch.legend()
    return sketch.drawing


@dataclass(slots=True)
class _Figure(Sketch):
    """The classifier while it is drawn."""

    model: dict[str, Any]
    height: float
    shape: Layer
    encoder: tuple[float, float] = field(default=(0.0, 0.0))  # top and bottom of the encoder box

    @classmethod
    def empty(cls, model: dict[str, Any], theme: Theme) -> "_Figure":
        shape = layer_of(model)
        height = TOP + _panel_height(shape) + 0.45
        figure = new_figure(WIDTH, height, theme)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        return cls(theme, Drawing(figure), axes, model, height, shape)

    # the left column: the whole path

    def path(self) -> None:
        model, counts = self.model, self.model["parameters"]
        head = head_modules(model)
        labels = [drawable(name, index) for index, name in enumerate(model["labels"])]
        copies = "1 shared encoder layer" if is_shared(model) else f"{model['layers']} encoder layers"
        wide = f"{model['hidden_size']:,}"
        heads = [(f"{name}  {_shape(size)}", f"{count:,}") for name, size, count in head]
        pieces = (f"{model['vocabulary']:,} word pieces, positions", "frozen")
        boxes: list[tuple[float, str, str, str, list[tuple[str, str]]]] = [  # height, then what `card` takes
            (0.44, "data", "Tokens", "", [("one text as word pieces", "")]),
            (0.44, "frozen", "Embeddings", f"{counts['embeddings']:,}", [pieces]),
            (0.86, "frozen", copies, f"{counts['encoder']:,}", [(f"width {wide}", "frozen")]),
            (0.44, "data", f"{self.shape.names.pooled}, last layer", "", [(f"{wide} numbers", "")]),
            (0.3 + ROW * len(head), "trained", "Head", f"{counts['head']:,}", heads),
            (0.44, "data", f"{len(labels)} labels", "", [(" · ".join(labels), "")]),
        ]
        gap = (_panel_height(self.shape) - sum(height for height, *_ in boxes)) / (len(boxes) - 1)
        y = TOP
        for place, (height, kind, title, count, lines) in enumerate(boxes):
            if place:
                self.arrow((LEFT + LEFT_WIDTH / 2, y - gap), (LEFT + LEFT_WIDTH / 2, y))
            self.card(y, height, kind, title, count, lines)
            if title == copies:
                self.encoder = (y, y + height)
                self.strip(y + height - 0.38, f"LoRA in {model['adapted_modules']} modules", f"{counts['lora']:,}")
            y += height + gap

    def card(self, y: float, height: float, kind: str, title: str, count: str, lines: list[tuple[str, str]]) -> None:
        """A box of the left column: title and count, then lines of (text, right-hand text)."""
        patch = self.box(LEFT, y, LEFT_WIDTH, height, kind)
        for place, (text, right) in enumerate([(title, count), *lines]):
            self.line(patch, LEFT, LEFT_WIDTH, y + 0.14 + place * ROW, text, right, bold=place == 0)

    def strip(self, y: float, text: str, right: str) -> None:
        patch = self.box(LEFT + 0.08, y, LEFT_WIDTH - 0.16, 0.28, "trained")
        self.line(patch, LEFT + 0.08, LEFT_WIDTH - 0.16, y + 0.14, text, right, bold=True)

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
        title = f"Self-attention, {self.model['attention_heads']} heads"
        return self.joined(y, title, self.shape.inputs, "softmax(query · key) · value, per head", self.shape.output)

    def joined(self, y: float, title: str, inputs: tuple[Projection, ...], words: str, output: Projection) -> float:
        """A group of matrices side by side, what is made of their results, and a last matrix under that."""
        bottom = y + _joined_height()
        self.group(y, bottom, title, (*inputs, output))
        centre = PANEL + PANEL_WIDTH / 2
        rail, top = y + 0.3, y + 0.38
        many = len(inputs)
        wide, branch = {1: (1.3, BRANCH), 2: (0.9, BRANCH), 3: (0.62, 0.58)}[many]
        step = (PANEL_WIDTH - 0.24) / many
        middles = [PANEL + 0.12 + step * (place + 0.5) for place in range(many)]
        bar = top + UNIT_HEIGHT + 0.3
        taps: list[float] = []
        for middle, projection in zip(middles, inputs, strict=True):
            entries, leave = self.unit(middle, top, wide, projection, branch)
            for entry in entries:
                self.arrow((entry, rail), (entry, top))
            taps += entries
            self.arrow((leave, top + UNIT_HEIGHT + 0.17), (leave, bar))
        self.wire([(centre, y), (centre, rail)])
        self.wire([(min(*taps, centre), rail), (max(*taps, centre), rail)])
        self.bar(centre, bar, PANEL_WIDTH - 0.3, words)
        top = bar + 0.22 + 0.22
        entries, leave = self.unit(centre, top, 1.5, output)
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
        """The feed-forward group, its two matrices side by side; of three, those side by side whose results are multiplied."""
        shape = self.shape
        if len(shape.ups) > 1:
            return self.joined(y, "Feed-forward, gated", shape.ups, "activation(gate) · up", shape.down)
        (up,) = shape.ups
        bottom = y + _forward_height(shape)
        self.group(y, bottom, "Feed-forward, gated" if shape.names.gated else "Feed-forward", (up, shape.down))
        rail, top = y + 0.3, y + 0.38
        centre, foot = PANEL + PANEL_WIDTH / 2, top + UNIT_HEIGHT
        half = (PANEL_WIDTH - 0.24) / 4
        entries, leave = self.unit(centre - half, top, 0.9, up)
        later, last = self.unit(centre + half, top, 0.9, shape.down)
        self.wire([(centre, y), (centre, rail), (min(entries), rail)])
        lane = centre + 0.1  # out of the first, up between the two, into the second
        self.wire([(leave, foot + 0.17), (leave, foot + 0.21), (lane, foot + 0.21), (lane, rail), (max(later), rail)])
        for entry in (*entries, *later):
            self.arrow((entry, rail), (entry, top))
        self.wire([(last, foot + 0.17), (last, foot + 0.29), (centre, foot + 0.29), (centre, bottom)])
        return bottom

    def group(self, y: float, bottom: float, title: str, matrices: tuple[Projection, ...]) -> None:
        frozen, trained = sum(one.weights for one in matrices), sum(one.lora for one in matrices)
        counts = f"{frozen:,} frozen" + (f", {trained:,} trained" if trained else "")
        patch = self.box(PANEL + 0.08, y, PANEL_WIDTH - 0.16, bottom - y, "group")
        self.text(PANEL + 0.16, y + 0.13, title, 7, bold=True, align="left", within=patch)
        number = self.text(PANEL + PANEL_WIDTH - 0.16, y + 0.13, counts, 6.5, align="right", within=patch)
        fit(number, PANEL_WIDTH / 2 - 0.24)  # the other half is the title's, and x enters between them

    def legend(self) -> None:
        y = self.height - 0.22
        x = LEFT
        for kind, words in (("frozen", "frozen, as pretrained"), ("trained", "trained")):
            self.box(x, y - 0.07, 0.26, 0.14, kind)
            x += 0.33 + width_of(self.text(x + 0.33, y, words, 6.5, align="left")) + 0.18
        self.text(WIDTH - LEFT, y, share(self.model), 7, bold=True, align="right")


def _joined_height() -> float:
    return 0.38 + UNIT_HEIGHT + 0.3 + 0.22 + 0.22 + UNIT_HEIGHT + 0.31


def _forward_height(shape: Layer) -> float:
    return 0.38 + UNIT_HEIGHT + 0.37 if len(shape.ups) == 1 else _joined_height()


def _panel_height(shape: Layer) -> float:
    bars = 4 if shape.names.norm_first else 2
    return 0.34 + _joined_height() + _forward_height(shape) + bars * 0.22 + (bars + 1) * 0.14 + 0.1


def _shape(size: list[int]) -> str:
    return TIMES.join(str(number) for number in size)

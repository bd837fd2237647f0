"""The report's figures draw the numbers they are given, count what trains, and keep their text inside."""

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from report_parts import LABELS, ROBERTA, epoch_line, evaluation

from newslora.metrics.intervals import share
from newslora.model.families import FAMILIES
from newslora.report.accuracy import draw_breakdown, draw_reliability
from newslora.report.architecture import draw_architecture
from newslora.report.curves import draw_confusion, draw_training
from newslora.report.drawing import DARK, LIGHT, Drawing, drawable, plain_matplotlib
from newslora.report.layer import NAMES, caption, head_modules, is_shared, layer_of


def family_facts(model_type: str, setting: str) -> dict[str, Any]:
    """Facts of a wide model of the family, its adapted names as describe_classifier gives them: from the layer down."""
    shape = NAMES[model_type]
    every = (*shape.inputs, shape.output, *filter(None, (shape.gate, shape.up)), shape.down)
    wanted = FAMILIES[model_type].targets(setting)
    names = {f"part.{name}" for name in every if any(name == one or name.endswith(f".{one}") for one in wanted)}
    facts = ROBERTA | {
        "class": "DebertaV2ForSequenceClassification",
        "model_type": model_type,
        "layers": 24,
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "rank": 128,
        "adapted": [{"name": name, "shape": [1536, 1536]} for name in sorted(names)],
    }
    copies = 1 if model_type == "albert" else 24
    layer = layer_of(facts)
    adapted = [projection for projection in layer.projections if projection.rank]
    lora = copies * sum(projection.lora for projection in adapted)
    counts = {"trainable": lora + 593668, "lora": lora, "total": 880464388 + lora}
    return facts | {"adapted_modules": copies * len(adapted), "parameters": ROBERTA["parameters"] | counts}


def test_every_family_has_names_and_its_targets_are_found() -> None:
    assert set(NAMES) == set(FAMILIES)
    for model_type, family in FAMILIES.items():
        for setting in ("query-value", "all-linear"):
            facts = family_facts(model_type, setting)
            adapted = {projection.name for projection in layer_of(facts).projections if projection.rank}
            wanted = family.targets(setting)
            assert all(any(name == one or name.endswith(f".{one}") for one in wanted) for name in adapted)
            assert all(any(name == one or name.endswith(f".{one}") for name in adapted) for one in wanted)
            assert is_shared(facts) == (model_type == "albert")


def test_counts_of_the_reference() -> None:
    layer = layer_of(ROBERTA)
    assert 12 * sum(projection.lora for projection in layer.projections) == 147456
    assert head_modules(ROBERTA) == [("classifier.dense", [768, 768], 590592), ("classifier.out_proj", [4, 768], 3076)]
    assert "beside query and value in each of 12 layers, 24 modules in all" in caption(ROBERTA)


def test_a_gate_is_a_matrix_of_its_own_or_half_of_one() -> None:
    def ups(model_type: str) -> list[tuple[str, int, int]]:
        return [(one.name, one.rows, one.columns) for one in layer_of(family_facts(model_type, "all-linear")).ups]

    assert ups("gte") == [("gate_proj", 16384, 4096), ("up_proj", 16384, 4096)]
    assert ups("modernbert") == [("mlp.Wi", 32768, 4096)]
    assert ups("roberta") == [("intermediate.dense", 16384, 4096)]


def assert_inside(drawing: Drawing) -> None:
    """No text leaves its shape or the figure, and none lies over another."""
    figure = drawing.figure
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw_without_rendering()
    for text, patch in drawing.contained:
        inner, outer = text.get_window_extent(renderer), patch.get_window_extent(renderer)
        assert within(inner, outer), text.get_text()
    hidden = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in out_of_view(axis)}
    texts = [text for text in figure.findobj(is_shown) if text.get_rotation() in (0, 90) and text not in hidden]
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert boxes
    for place, box in enumerate(boxes):
        assert within(box, figure.bbox), texts[place].get_text()
        for other in range(place):
            overlap = boxes[other].padded(-1).overlaps(box.padded(-1))
            assert not overlap, f"{texts[place].get_text()!r} over {texts[other].get_text()!r}"


def within(inner: Any, outer: Any) -> bool:
    across = outer.x0 <= inner.x0 and inner.x1 <= outer.x1
    return bool(across and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)


def out_of_view(axis: Any) -> list[Any]:
    """Tick labels that matplotlib makes and does not draw."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


def is_shown(artist: Any) -> bool:
    from matplotlib.text import Text

    return isinstance(artist, Text) and artist.get_visible() and bool(artist.get_text().strip())


SPARSE = [("roberta", "query-value"), ("modernbert", "query-value")]  # few branches, so another layout


@pytest.mark.parametrize(("model_type", "setting"), [(name, "all-linear") for name in sorted(FAMILIES)] + SPARSE)
def test_architecture_text_stays_in_its_boxes(model_type: str, setting: str) -> None:
    labels = [f"a label with a long name {number}" for number in range(77)]
    with plain_matplotlib():
        drawing = draw_architecture(family_facts(model_type, setting) | {"labels": labels}, LIGHT)
        assert len(drawing.contained) > 20
        assert_inside(drawing)
    cut = [text.get_text() for text, _ in drawing.contained if text.get_text().endswith("\N{HORIZONTAL ELLIPSIS}")]
    assert [words[:7] for words in cut] == ["a label"]  # a number cut short would be another number


@pytest.mark.parametrize("epochs", [1, 5, 20, 100])
def test_training_figure_text_does_not_overlap(epochs: int) -> None:
    steps = [{"kind": "train", "epoch": step / 40, "loss": 9 / (step + 1)} for step in range(1, 40 * epochs)]
    lines = [*steps, *(epoch_line(epoch) for epoch in range(1, epochs + 1))]
    with plain_matplotlib():
        assert_inside(draw_training(lines, 640, epochs, DARK))


@pytest.mark.parametrize(
    ("many", "name"), [(2, "yes"), (4, "Sci/Tech"), (8, "quite a long label indeed"), (30, "topic")]
)
def test_confusion_text_stays_in_its_cells(many: int, name: str) -> None:
    counts = [[123456 if row == column else 7 for column in range(many)] for row in range(many)]
    counts[1] = [0] * many  # a label without rows
    labels = [f"{name} {index}" for index in range(many)]
    with plain_matplotlib():
        drawing = draw_confusion({"labels": labels, "confusion": counts}, LIGHT)
        assert_inside(drawing)
        words = {text.get_text() for text, _ in drawing.contained}
    assert ("123,456" in words) == (many <= 20)


def drawn(axes: Any) -> dict[str, Any]:
    """What the legend names: points as (x, y), and where they have intervals their ends."""
    found: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        points = handle[0] if isinstance(handle, tuple) else handle
        found[label] = None if points is None else points.get_xydata().tolist()
        if isinstance(handle, tuple):
            found[f"{label}: ends"] = ends(handle, axis=1)
    return found


def ends(container: Any, axis: int) -> list[Any]:
    """Of each error bar, the lower and the upper end."""
    return [sorted(end[axis] for end in segment) for segment in container[2][0].get_segments()]


def per_cent(rates: list[Any]) -> list[Any]:
    return [pytest.approx([100 * end for end in one["interval"]]) for one in rates]


@pytest.fixture(scope="module")
def evaluated() -> dict[str, Any]:
    return evaluation("test", LABELS, 400, chose=False)


def test_the_reliability_figure_is_drawn_from_the_evaluations_bins(evaluated: dict[str, Any]) -> None:
    one = evaluated
    with plain_matplotlib():
        upper, lower = draw_reliability(one, LIGHT).figure.axes
    found, bins = drawn(upper), one["reliability"]["bins"]
    before = [bin for bin in one["calibration"]["before"]["reliability"]["bins"] if bin["rows"] >= 10]
    after = [bin for bin in bins if bin["rows"] >= 10]
    assert 3 < len(after) < len(bins)  # some are left out
    for label, own in (("before the temperature", before), ("after, 95 % interval", after)):
        wanted = [[100 * bin["confidence"], 100 * bin["accuracy"]["value"]] for bin in own]
        assert found[label] == [pytest.approx(point) for point in wanted]
    assert found["after, 95 % interval: ends"] == per_cent([bin["accuracy"] for bin in after])
    assert found["as right as sure"] == [[0, 0], [100, 100]]
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in lower.patches]
    assert bars == [pytest.approx((50 * (bin["low"] + bin["high"]), bin["rows"] / 4)) for bin in bins]
    unscaled = one | {"calibration": one["calibration"] | {"temperature": 1.0}}
    with plain_matplotlib():
        assert "before the temperature" not in drawn(draw_reliability(unscaled, LIGHT).figure.axes[0])


def group_name(by: str, group: dict[str, Any]) -> str:
    if by == "confidence":
        return f"{100 * group['low']:.2f} to {100 * group['high']:.2f} %"
    return f"{group['low']} to {group['high']}" if by == "length" else group["name"]


def test_a_breakdowns_figure_is_drawn_from_its_groups(evaluated: dict[str, Any]) -> None:
    for breakdown in evaluated["accuracy_by"]:
        groups = breakdown["groups"]
        rates = [group["accuracy"] for group in groups]
        with plain_matplotlib():
            figure = draw_breakdown(breakdown, 0.625, LIGHT).figure
        (axes,) = figure.axes
        (dots,) = axes.containers
        wanted = [[100 * rate["value"], place] for place, rate in enumerate(rates)]
        assert dots[0].get_xydata().tolist() == [pytest.approx(point) for point in wanted]
        assert ends(dots, axis=0) == per_cent(rates)
        assert [62.5, 62.5] in [line.get_xdata() for line in axes.lines]
        texts = [(text.get_text(), text.get_position()[1]) for text in figure.texts]
        low, high = axes.get_position().y0, axes.get_position().y1
        bottom, top = axes.get_ylim()
        for place, group in enumerate(groups):  # name and rows stand beside the dot
            middle = pytest.approx(high - (high - low) * (place - top) / (bottom - top))
            assert (group_name(breakdown["by"], group), middle) in texts
            assert (f"{group['rows']:,}", middle) in texts


def test_the_training_figure_is_drawn_from_the_metrics() -> None:
    steps = [{"kind": "train", "epoch": step / 10, "loss": 3 / (step + 2)} for step in range(1, 31)]
    epochs = [epoch_line(epoch) for epoch in (1, 2, 3)]
    with plain_matplotlib():
        left, right = draw_training([*steps, *epochs], 640, 2, LIGHT).figure.axes
    loss, accuracy = drawn(left), drawn(right)
    assert loss["training, as logged"] == [[step["epoch"], step["loss"]] for step in steps]
    assert loss["validation"] == [[line["epoch"], line["validation_loss"]] for line in epochs]
    means = [line.get_xydata().tolist() for line in left.lines if line.get_linewidth() == 2.6]
    assert means == [[[n - 1, epochs[n - 1]["train_loss"]], [n, epochs[n - 1]["train_loss"]]] for n in (1, 2, 3)]
    assert loss[f"kept: epoch 2, {epochs[1]['validation_loss']:.4f}"] == [[2, epochs[1]["validation_loss"]]]
    shares = [line["validation_accuracy"] for line in epochs]
    assert accuracy["accuracy"] == [[n, pytest.approx(100 * shares[n - 1])] for n in (1, 2, 3)]
    assert accuracy["95 % interval: ends"] == per_cent([share(round(640 * one), 640) for one in shares])
    (ring,) = [points for label, points in accuracy.items() if label.startswith("kept: epoch 2, ")]
    assert ring == [[2, pytest.approx(100 * shares[1])]]
    assert f"kept: epoch 2, {100 * shares[1]:.2f}\N{NO-BREAK SPACE}%" in accuracy


def test_a_confusion_cell_holds_its_count_and_its_share_of_the_true_labels_rows() -> None:
    counts = [[6, 2, 0], [1, 9, 0], [0, 0, 0]]
    with plain_matplotlib():
        drawing = draw_confusion({"labels": ["a", "b", "c"], "confusion": counts}, LIGHT)
        words: dict[Any, list[str]] = {}
        for text, patch in drawing.contained:
            words.setdefault((patch.get_y(), patch.get_x()), []).append(
                text.get_text().replace("\N{NO-BREAK SPACE}", " ")
            )
        low, high = (to_rgb(colour) for colour in LIGHT.cells)
        (axes,) = drawing.figure.axes
        fills = {
            (patch.get_y(), patch.get_x()): patch.get_facecolor() for patch in axes.patches if patch.get_width() == 1
        }
        names = {text.get_text(): text.get_position() for text in axes.texts if text.get_ha() == "right"}
    assert words[0, 0] == ["6", "75.0 %"]
    assert words[0, 1] == ["2", "25.0 %"]
    assert words[1, 0] == ["1", "10.0 %"]
    assert words[2, 2] == ["0"]  # no rows, no share
    for place, part in (((0, 0), 0.75), ((1, 0), 0.1), ((0, 2), 0.0)):
        assert fills[place][:3] == pytest.approx([a + (b - a) * part for a, b in zip(low, high, strict=True)])
    assert [names[name][1] for name in "abc"] == [0.5, 1.5, 2.5]


def test_of_many_labels_only_cells_with_rows_are_drawn() -> None:
    counts = np.zeros((30, 30), dtype=int)
    counts[3, 7], counts[3, 3] = 1, 3
    with plain_matplotlib():
        drawing = draw_confusion({"labels": [f"l{n}" for n in range(30)], "confusion": counts.tolist()}, DARK)
        ground, *cells = drawing.figure.axes[0].patches
    assert (ground.get_width(), ground.get_facecolor()[:3]) == (30, pytest.approx(to_rgb(DARK.cells[0])))
    assert [(cell.get_y(), cell.get_x()) for cell in cells] == [(3, 3), (3, 7)]
    low, high = (to_rgb(colour) for colour in DARK.cells)
    for cell, part in zip(cells, (0.75, 0.25), strict=True):
        assert cell.get_facecolor()[:3] == pytest.approx([a + (b - a) * part for a, b in zip(low, high, strict=True)])


@pytest.mark.parametrize("rows", [25, 4000])
def test_accuracy_figures_text_does_not_overlap(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newslora.metrics.intervals.RESAMPLES", 2)  # none of these figures shows what they tell
    one = evaluation("test", [f"quite a long label indeed {number}" for number in range(25)], rows, chose=False)
    with plain_matplotlib():
        assert_inside(draw_reliability(one, LIGHT))
        for breakdown in one["accuracy_by"]:
            drawing = draw_breakdown(breakdown, one["accuracy"]["value"], DARK)
            assert_inside(drawing)
            words = {text.get_text() for text in drawing.figure.findobj(is_shown)}
            assert {f"{group['rows']:,}" for group in breakdown["groups"]} <= words


def test_a_label_the_font_lacks_is_drawn_by_number() -> None:
    with plain_matplotlib():
        assert drawable("Sci/Tech $ ü", 3) == "Sci/Tech $ ü"
        assert drawable("体育", 3) == drawable("عربي", 3) == drawable(" \n", 3) == "label 3"
        assert drawable("two\nlines", 0) == "two lines"

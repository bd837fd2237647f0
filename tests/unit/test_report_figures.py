"""The report's figures count what trains and keep their text inside."""

from typing import Any

import pytest
from report_parts import ROBERTA, epoch_line, evaluation

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


@pytest.mark.parametrize("rows", [25, 4000])
def test_accuracy_figures_text_does_not_overlap(rows: int) -> None:
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

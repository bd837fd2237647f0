"""The report states the run's own numbers, stands alone, and its figures keep their text inside."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conftest import DECISIVE
from newslora import files
from newslora.cli.evaluation_tables import evaluation_tables, remarks_on
from newslora.config import load_recipe, make_recipe, setting_fields, to_toml
from newslora.errors import RunError
from newslora.evaluation.breakdown import breakdowns
from newslora.metrics import full_metrics
from newslora.metrics.basic import SHARES
from newslora.metrics.calibration import calibration_numbers, reliability, top_answers
from newslora.metrics.classes import absent_note
from newslora.metrics.intervals import share
from newslora.model.families import FAMILIES
from newslora.report.accuracy import draw_breakdown, draw_reliability
from newslora.report.architecture import draw_architecture
from newslora.report.card import write_card
from newslora.report.curves import draw_confusion, draw_training
from newslora.report.drawing import DARK, LIGHT, Drawing, Written, drawable, plain_matplotlib
from newslora.report.explained import _chosen_rows
from newslora.report.findings import METRICS, confused, findings, wrong_rows
from newslora.report.layer import NAMES, caption, head_modules, is_shared, layer_of
from newslora.report.pages import seconds
from newslora.report.report import report_run, write_report
from newslora.runfolder import RunFolder

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "img", "source", "br", "link", "input", "hr"}

# what describe_classifier says of roberta-base with rank 4 on query and value
ROBERTA: dict[str, Any] = {
    "class": "RobertaForSequenceClassification",
    "model_type": "roberta",
    "layers": 12,
    "hidden_size": 768,
    "attention_heads": 12,
    "intermediate_size": 3072,
    "vocabulary": 50265,
    "labels": LABELS,
    "rank": 4,
    "alpha": 16.0,
    "dropout": 0.1,
    "adapted": [{"name": "query", "shape": [768, 768]}, {"name": "value", "shape": [768, 768]}],
    "adapted_modules": 24,
    "head": [
        {"name": "classifier.dense.weight", "shape": [768, 768], "parameters": 589824},
        {"name": "classifier.dense.bias", "shape": [768], "parameters": 768},
        {"name": "classifier.out_proj.weight", "shape": [4, 768], "parameters": 3072},
        {"name": "classifier.out_proj.bias", "shape": [4], "parameters": 4},
    ],
    "parameters": {
        "trainable": 741124,
        "lora": 147456,
        "head": 593668,
        "embeddings": 39000576,
        "encoder": 85054464,
        "total": 124796164,
    },
}


def family_facts(model_type: str, setting: str) -> dict[str, Any]:
    """Facts of a wide model of the family, its adapted names as describe_classifier gives them: from the layer down."""
    shape = NAMES[model_type]
    every = (*shape.inputs, shape.output, shape.up, shape.down)
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


def epoch_line(epoch: int, best: bool = False) -> dict[str, Any]:
    return {
        "kind": "epoch",
        "step": 100 * epoch,
        "epoch": epoch,
        "train_loss": 0.9131 / epoch,
        "validation_loss": 0.5717 / epoch,
        "validation_accuracy": 1 - 0.1753 / epoch,
        "validation_macro_f1": 1 - 0.2161 / epoch,
        "best": best,
    }


def evaluation(name: str, labels: list[str], rows: int, chose: bool) -> dict[str, Any]:
    random = np.random.default_rng(rows)
    true = random.integers(0, len(labels), rows)
    probabilities = random.dirichlet(np.ones(len(labels)), rows)
    probabilities[np.arange(rows), true] += 0.4
    probabilities /= 1.4
    hits, confidence = top_answers(true, probabilities)
    numbers = calibration_numbers(true, probabilities)
    head = {"name": name, "source": f"{name}.csv", "sha256": "ab" * 32, "quarantined": 0}
    tail = {"chose_the_epoch": chose, "note": "Optimistic." if chose else None, "adapter_sha256": "c" * 64}
    groups = breakdowns(hits, confidence, random.integers(5, 90, rows), {"publisher": [labels[k] for k in true]})
    reliable = {"reliability": reliability(hits, np.sqrt(confidence))}
    level = {
        "coverage": share(9, 10),
        "answered": share(8, 10),
        "accuracy_of_answered": share(7, 8),
        "mean_set_size": 1.2,
    }
    wrong = {"row": 1234, "text": f"of {HOSTILE}", "label": labels[0], "predicted": labels[1], "confidence": 0.9125}
    rest = {
        "calibration": {
            "temperature": 1.5, "reason": None, "validation_rows": 60, "after": numbers,
            "before": numbers | {"ece": 0.4321} | reliable,
        },
        "abstention": {"levels": [{"level": 0.95, "reason": "Too few."}, {"level": 0.99} | level]},
        "accuracy_by": groups,
        "errors": [wrong],
    }  # fmt: skip
    metrics = full_metrics(true, probabilities, labels)
    return head | metrics | rest | tail | {"precision": "fp32", "seconds": 1.0}


def make_run(path: Path, labels: list[str], source: str = "news.csv") -> tuple[RunFolder, dict[str, Any]]:
    data = {"source": source, "label_names": ["a", "b"]}
    recipe = make_recipe({"name": "mine", "description": f"About {source}", "data": data, "train": {"epochs": 7}})
    run = RunFolder.create(path, recipe)
    one = {"source": source, "sha256": "12" * 32, "text_columns": ["text"], "label_column": "label"}
    splits = {
        "train": one | {"rows": 119360, "quarantined": 17},
        "validation": one | {"rows": 640, "quarantined": 3},
        "test": one | {"rows": 7600, "quarantined": 0},
    }
    facts = {"labels": labels, "validation_is_cut_from_train": True, "splits": splits, "max_length": 512}
    files.write_json(run.data_file, facts | {"tokenizer_sha256": "34" * 32, "tokens": {"train": 6326080}})
    steps = [
        {"kind": "train", "step": s, "epoch": s / 100, "loss": 3 / (s + 1), "learning_rate": 1.0}
        for s in range(0, 300, 10)
    ]
    lines = [*steps, epoch_line(1), epoch_line(2, best=True), epoch_line(3)]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, rows in (("validation", 60), ("test", 90)):
        files.write_json(run.evaluation / f"{name}.json", evaluation(name, labels, rows, name == "validation"))
    environment = {
        "device": "cpu",
        "accelerator": None,
        "cpu": "a processor",
        "threads": 2,
        "precision": "fp32",
        "precision_reason": "asked for",
        "python": "3.11.7",
        "system": "Linux x86_64",
        "packages": {"torch": "2.13.0", "newslora": None},
        "commit": None,
    }
    manifest = {
        "format": 1,
        "recipe": "mine",
        "adapter_sha256": "c" * 64,
        "backbone": {
            "name": "roberta-base",
            "location": "roberta-base",
            "kind": "hub",
            "revision": None,
            "sha256": None,
        },
        "model": ROBERTA | {"labels": labels},
        "training": {"steps": 37300, "seconds": 1970.2, "best_epoch": 2},
        "seed": 42,
        "environment": environment,
        "finished": "2026-11-24T03:39:13Z",
    }
    files.write_json(run.manifest_file, manifest)
    return run, manifest


class Page(HTMLParser):
    """Tags balanced, text per cell, and everything a browser would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.alts: list[str] = []
        self.cells: list[list[str]] = []
        self.seen: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        self.fetched += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        self.alts += [value or "" for key, value in attrs if key == "alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if any(tag in self.open for tag in ("td", "th")):
            self.cells[-1][-1] += data

    def rows(self) -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.cells]


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a report's time; tests of its words do without."""
    monkeypatch.setattr("newslora.report.report.write_figure", lambda folder, name, draw: Written(name, b"", b""))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    run, manifest = make_run(tmp_path_factory.mktemp("report") / "a run", LABELS)
    return run, write_report(run, manifest).read_text(encoding="utf-8")


def pct(value: float) -> str:
    return f"{100 * value:.2f} %"


def with_interval(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{pct(one['value'])} {100 * low:.1f}\N{EN DASH}{100 * high:.1f} %"


def test_every_number_of_the_tables_appears(reported: tuple[RunFolder, str]) -> None:
    run, html = reported
    rows = Page(html).rows()
    for epoch in (1, 2, 3):
        line = epoch_line(epoch)
        kept = "kept" if epoch == 2 else ""
        losses = [f"{line['train_loss']:.4f}", f"{line['validation_loss']:.4f}"]
        shares = [pct(line["validation_accuracy"]), pct(line["validation_macro_f1"])]
        assert [str(epoch), *losses, *shares, kept] in rows
    for name in ("validation", "test"):
        one = files.read_json(run.evaluation / f"{name}.json")
        shown = {key: told for key, told in METRICS.items() if key in one}
        assert len(shown) == 10
        for key, (words, meaning) in shown.items():
            low, high = one[key]["interval"]
            shown = pct(one[key]["value"]) if key in SHARES else f"{one[key]['value']:.4f}"
            bounds = (
                f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f} %" if key in SHARES else f"{low:.4f}\N{EN DASH}{high:.4f}"
            )
            assert [f"{words} {meaning}", shown, bounds] in rows
        assert ["Calibration error (ECE)", pct(0.4321), pct(one["ece"]["value"])] in rows
        level = one["abstention"]["levels"][1]
        kinds = ("coverage", "answered", "accuracy_of_answered")
        assert ["0.99", *(with_interval(level[kind]) for kind in kinds)] in rows
        assert "Too few." in html
        assert ["1,234", LABELS[0], LABELS[1], "91.2 %", f"of {HOSTILE}"] in rows
        for label, numbers in one["per_class"].items():
            three = [with_interval(numbers[key]) for key in ("precision", "recall", "f1")]
            assert [label, *three, str(numbers["rows"])] in rows
    assert ["train", "news.csv", "119,360", "6,326,080", "17", "text \N{RIGHTWARDS ARROW} label", "12" * 6] in rows
    assert {row[0] for row in rows} >= {key for key, _ in setting_fields()}
    assert "37,300 steps, 32 min 50 s, seed 42" in html.replace("\N{NO-BREAK SPACE}", " ")


def test_settings_are_the_resolved_ones(reported: tuple[RunFolder, str]) -> None:
    found = {row[0]: row[1] for row in Page(reported[1]).rows() if len(row) == 3}
    assert found["train.epochs"] == "7"
    assert found["data.label_names"] == "a, b"
    assert found["data.test"] == "unset"
    assert found["train.gradient_checkpointing"] == "false"


def test_the_first_glance_is_the_test_split_without_the_validation_caveat(reported: tuple[RunFolder, str]) -> None:
    _, html = reported
    glance = html[html.index('class="glance"') : html.index("<h2>")]
    assert "Accuracy on 90 test rows" in glance
    assert "Optimistic." not in glance


def test_the_page_stands_alone_and_shows_every_figure_on_both_papers(reported: tuple[RunFolder, str]) -> None:
    run, html = reported
    page = Page(html)
    pictures = [value for value in page.fetched if not value.startswith("#")]
    assert len(pictures) == 18  # nine figures, light and dark
    assert all(value.startswith("data:image/svg+xml;base64,") for value in pictures)
    assert {value[1:] for value in page.fetched if value not in pictures} <= set(re.findall(r'id="([^"]+)"', html))
    assert not re.search(r"@import|url\(|<script|<link", html)
    assert all(page.alts)
    assert page.seen.count("h1") == 1
    assert page.seen.count("table") == page.seen.count("caption")
    names = {"architecture", "training"}
    names |= {f"{kind}-{split}" for kind in ("confusion", "reliability") for split in ("validation", "test")}
    names |= {f"by-test-{place}" for place in (1, 2, 3)}
    expected = {f"{name}{suffix}" for name in names for suffix in (".svg", ".png", "-dark.svg")}
    assert {path.name for path in run.figures.iterdir()} == expected
    embedded = {base64.b64decode(value.partition(",")[2]) for value in pictures}
    assert embedded == {path.read_bytes() for path in run.figures.glob("*.svg")}


def test_figure_and_caption_state_what_trains(reported: tuple[RunFolder, str]) -> None:
    run, html = reported
    drawn = (run.figures / "architecture.svg").read_text(encoding="utf-8")
    for number in ("741,124", "147,456", "593,668", "39,000,576", "85,054,464"):
        assert number in drawn  # matplotlib writes the text it outlines as a comment
    assert "741,124 of 124,796,164 parameters trained (0.59\N{NO-BREAK SPACE}%)" in html


def test_the_same_run_gives_the_same_bytes(reported: tuple[RunFolder, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    run, _ = reported
    files_of_run = [run.report_file, *sorted(run.figures.iterdir())]
    before = [path.read_bytes() for path in files_of_run]
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 31.0)  # somebody's matplotlibrc
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    assert report_run(run.path) == run.report_file
    assert [path.read_bytes() for path in files_of_run] == before
    assert matplotlib.rcParams["font.size"] == 31.0


def test_hostile_names_are_text(tmp_path: Path) -> None:
    labels = [HOSTILE, '--><b>$x$ & "q"', "体育", "two\nlines"]
    run, manifest = make_run(tmp_path / "it's <b>", labels, source=f"{HOSTILE}.csv")
    files.write_json(run.evaluation / "more.json", evaluation("more", labels, 50, chose=False))
    (run.evaluation / "test.json").unlink()
    html = write_report(run, manifest).read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.seen
    assert page.seen.count("b") == 2  # the captions' own: Figure 1 and Figure 2
    assert any(f"{HOSTILE}.csv" in row for row in page.rows())
    assert {row[0] for row in page.rows()} >= {HOSTILE, labels[1], "体育"}
    assert html.count("<summary>more: 50 rows, accuracy") == 1
    for path in run.figures.glob("*.svg"):
        ElementTree.parse(path)

    glance = html[html.index('class="glance"') : html.index("<h2>")]  # without test rows, and it says so
    assert "Accuracy on 60 validation rows" in glance
    assert "Optimistic." in glance


def test_findings_say_what_the_numbers_say() -> None:
    one = evaluation("test", LABELS, 90, chose=False)
    weakest = min(LABELS, key=lambda label: one["per_class"][label]["recall"]["value"])
    said = " ".join(findings(one)).replace("\N{NO-BREAK SPACE}", " ")
    assert f"Weakest label: {weakest}. {100 * one['per_class'][weakest]['recall']['value']:.1f} %" in said
    assert f"{100 * one['confidence']['value']:.1f} % sure on average" in said
    assert "it answers 80.0 % of the rows and is right on 87.5 %" in said
    pairs = confused(one)
    counts = {(a, b): one["confusion"][i][j] for i, a in enumerate(LABELS) for j, b in enumerate(LABELS) if i != j}
    assert {(pair.true, pair.predicted): pair.count for pair in pairs} == {k: v for k, v in counts.items() if v}
    assert [pair.count for pair in pairs] == sorted((pair.count for pair in pairs), reverse=True)
    assert wrong_rows(one) == sum(counts.values())


def test_an_evaluation_of_an_older_newslora_is_shown_as_far_as_it_goes(tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    for name in ("test", "validation"):
        one = files.read_json(run.evaluation / f"{name}.json")
        new = {"calibration", "abstention", "accuracy_by", "errors", "reliability", *METRICS} - {"accuracy", "macro_f1"}
        files.write_json(run.evaluation / f"{name}.json", {key: value for key, value in one.items() if key not in new})
    rows = Page(write_report(run, manifest).read_text(encoding="utf-8")).rows()
    assert ["Loss mean cross-entropy in nats", f"{one['loss']:.4f}", "\N{EN DASH}"] in rows


def test_labels_without_rows_show_a_dash_on_every_page_and_screen(tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    one, dash = evaluation("test", LABELS, 90, False), "\N{EN DASH}"
    truth = np.array([0, 0, 1, 1] * 5)
    numbers = full_metrics(truth, np.eye(len(LABELS))[np.array([0, 0, 1, 2] * 5)], LABELS)
    one |= {
        "per_class": numbers["per_class"],
        "macro_f1": numbers["macro_f1"],
        "note": absent_note(numbers["per_class"]),
    }
    files.write_json(run.evaluation / "test.json", one)
    html = write_report(run, manifest).read_text(encoding="utf-8")
    rows = Page(html).rows()
    assert [LABELS[3], dash, dash, dash, "0"] in rows
    predicted = next(row for row in rows if row[0] == LABELS[2] and len(row) == 5 and row[-1] == "0")
    assert predicted[1].startswith("0.00")
    assert predicted[2] == dash
    assert "labels have no rows here; macro averages leave out" in html
    assert "Macro averages leave out Sci/Tech." in html
    assert "Macro averages leave out Sci/Tech." in write_card(run, manifest).read_text(encoding="utf-8")
    console = Console(width=80, record=True, file=io.StringIO())
    for table in evaluation_tables(one):
        console.print(table)
    cells = [
        re.split(r" *\N{BOX DRAWINGS LIGHT VERTICAL} *", line)[1:-1] for line in console.export_text().splitlines()
    ]
    assert [LABELS[0], "100 (72.2-100)", "100 (72.2-100)", "100 (83.9-100)", "10"] in cells
    assert [LABELS[3], "-", "-", "-", "0"] in cells
    assert one["note"] in list(remarks_on(one))


def test_a_value_without_an_interval_says_why_on_every_page_and_screen(tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    truth = np.array([0, 1, 2, 3] * 5)
    perfect = full_metrics(truth, np.eye(len(LABELS))[truth], LABELS)
    one, dash = evaluation("test", LABELS, 90, False), "\N{EN DASH}"
    files.write_json(run.evaluation / "test.json", one | {"mcc": perfect["mcc"], "ece": perfect["ece"]})
    html = write_report(run, manifest).read_text(encoding="utf-8")
    row = next(row for row in Page(html).rows() if row[0].startswith("Matthews"))
    assert row[1:] == ["1.0000", dash]
    assert "every resample of the rows gives this value" in row[0]
    card = write_card(run, manifest).read_text(encoding="utf-8")
    assert f"| Matthews' coefficient | 1.0000 | {perfect['mcc']['reason']} |" in card
    assert "name: Matthews' coefficient\n" in card  # in the header, without a bracket
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluation_tables(one | {"mcc": perfect["mcc"]}):
        console.print(table)
    assert perfect["mcc"]["reason"] in console.export_text()


def test_a_confusion_table_is_shown_whole_or_not_at_all() -> None:
    def shown(many: int, width: int) -> tuple[str, bool]:
        names = [f"section-{place:02}" for place in range(many)]
        one = evaluation("test", names, 1000, False)
        one["confusion"] = [[1000 + place] * many for place in range(many)]
        console = Console(width=width, record=True, file=io.StringIO())
        for table in evaluation_tables(one, width):
            console.print(table)
        text = console.export_text()
        return " ".join(text.split()), all(text.count(f" {1000 + place:,} ") >= many for place in range(many))

    assert shown(4, 80)[1]
    assert shown(20, 200)[1]
    for many in range(2, 24):
        text, whole = shown(many, 80)
        assert ("confusion (rows: true" in text) == whole
        assert ("labels are confused takes a wider screen; it stands in evaluation/test.json" in text) != whole


def test_an_audit_of_these_rows_is_shown_and_one_of_others_is_not(tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "runs" / "one", LABELS)
    labels = {"split": "train", "judged_by": "words", "its_accuracy": 0.9, "likely_wrong": 37, "rows": 1000}
    leak = {"split": "test", "repeats": "train", "equal_rows": 2, "near_rows": 13, "with_another_label": 4, "rows": 90}
    audit = {"splits": [{"sha256": "56" * 32}], "labels": [labels], "leakage": [leak]}
    files.write_json(run.path.parent / "audit.json", audit)
    assert "not audited yet" in write_report(run, manifest).read_text(encoding="utf-8")
    files.write_json(run.path.parent / "audit.json", audit | {"splits": [{"sha256": "12" * 32}]})
    files.write_text(
        run.path.parent / "labels.csv", f"split,row,given,suggested,text\ntrain,17,World,Sports,{HOSTILE}\n"
    )
    html = write_report(run, manifest).read_text(encoding="utf-8")
    assert ["train", "17", "World", "Sports", HOSTILE] in Page(html).rows()
    assert "37 of 1,000 labels (3.7 %) are probably wrong" in " ".join(html.split())
    assert "repeat a row of train: 2 word for word and 13 nearly, of 90; 4 under another label" in " ".join(
        html.split()
    )


def test_explanations_are_shown_or_why_there_are_none(planted: Path, tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    assert "has no adapter yet" in write_report(run, manifest).read_text(encoding="utf-8")
    html = report_run(planted).read_text(encoding="utf-8")
    stored = files.read_json(planted / "evaluation" / "explanations.json")
    assert stored["adapter_sha256"] == RunFolder.open(planted).manifest()["adapter_sha256"]
    assert html.count('<div class="example right">') == len(stored["examples"]) == 3  # nothing is wrong there
    marked = [word for one in stored["examples"] for word in one["words"] if word["text"] == DECISIVE]
    assert marked
    for word in marked:
        assert f'title="{word["score"]:+.3f}">{DECISIVE}</span>' in html
    before = (planted / "evaluation" / "explanations.json").stat().st_mtime_ns
    report_run(planted)
    assert (planted / "evaluation" / "explanations.json").stat().st_mtime_ns == before  # explained once


def test_the_surest_mistakes_and_a_spread_of_right_answers_are_explained(tmp_path: Path) -> None:
    lines = [("A", "A", 0.5), ("A", "B", 0.6), ("A", "B", 0.9), ("A", "A", 0.8), ("B", "A", 0.7), ("B", "A", 0.95)]
    lines += [("B", "B", 0.99), ("B", "B", 0.97), ("A", "A", 0.85)]
    run = RunFolder(tmp_path)
    text = "row,text,label,predicted,probability\n"
    text += "".join(f"{row},text {row},{','.join(map(str, line))}\n" for row, line in enumerate(lines))
    files.write_text(run.evaluation / "test.csv", text + f"77,{'long ' * 900},A,B,0.999\n")
    assert [row["row"] for row in _chosen_rows(run)] == ["5", "2", "4", "0", "8", "6"]
    assert _chosen_rows(RunFolder(tmp_path / "none")) == []


def test_a_changed_bundled_recipe_names_its_changes(tmp_path: Path, no_figures: None) -> None:
    recipe = load_recipe("quickstart", {"train.epochs": 9})
    run, manifest = make_run(tmp_path / "run", LABELS)
    files.write_text(run.recipe_file, to_toml(recipe))
    assert "The recipe quickstart with train.epochs = 9." in write_report(run, manifest).read_text(encoding="utf-8")


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", LABELS)
    run.manifest_file.unlink()
    with pytest.raises(RunError, match="did not finish"):
        report_run(run.path)


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


@pytest.mark.parametrize(
    ("value", "words"), [(0.44, "0.4 s"), (59.6, "1 min 0 s"), (1970.2, "32 min 50 s"), (7322, "2 h 2 min 2 s")]
)
def test_seconds(value: float, words: str) -> None:
    assert seconds(value).replace("\N{NO-BREAK SPACE}", " ") == words

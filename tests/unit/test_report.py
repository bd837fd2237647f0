"""The report states the run's own numbers and stands alone."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_parts import HOSTILE, LABELS, epoch_line, evaluation, make_run
from rich.console import Console

from conftest import DECISIVE
from newslora import files
from newslora.cli.evaluation_tables import evaluation_tables, remarks_on
from newslora.config import load_recipe, setting_fields, to_toml
from newslora.errors import RunError
from newslora.metrics.basic import SHARES
from newslora.metrics.classes import absent_note
from newslora.metrics.single_label import full_metrics
from newslora.report.card import write_card
from newslora.report.drawing import Draw, Written, write_figure
from newslora.report.explained import _chosen_rows
from newslora.report.findings import METRICS, confused, findings, speeds, wrong_rows
from newslora.report.pages import seconds, weightiest
from newslora.report.report import report_run, write_report
from newslora.runfolder import RunFolder

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


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
        assert ["Mean confidence", pct(0.8765), pct(one["confidence"]["value"])] in rows
        assert ["Log loss (nats)", "0.6543", f"{one['log_loss']['value']:.4f}"] in rows
        assert ["Brier score", "0.5432", f"{one['brier']['value']:.4f}"] in rows
        assert [f"evaluation, {name}", str(one["rows"]), "1.0 s", f"{one['rows']:.1f}", "\N{EN DASH}"] in rows
        level = one["abstention"]["levels"][1]
        kinds = ("coverage", "answered", "accuracy_of_answered")
        assert ["0.99", *(with_interval(level[kind]) for kind in kinds)] in rows
        assert "Too few." in html
        assert ["1,234", LABELS[0], LABELS[1], "91.2 %", f"of {HOSTILE}"] in rows
        for label, numbers in one["per_class"].items():
            three = [with_interval(numbers[key]) for key in ("precision", "recall", "f1")]
            assert [label, *three, str(numbers["rows"])] in rows
    assert ["train", "news.csv", "119,360", "6,326,080", "17", "text \N{RIGHTWARDS ARROW} label", "12" * 6] in rows
    assert ["training, 3 epochs with validation", "358,080", "32 min 50 s", "181.7", "9,633"] in rows
    assert {row[0] for row in rows} >= {key for key, _ in setting_fields()}
    assert "37,300 steps, 32 min 50 s, seed 42" in html.replace("\N{NO-BREAK SPACE}", " ")


def test_settings_are_the_resolved_ones(reported: tuple[RunFolder, str]) -> None:
    found = {row[0]: row[1] for row in Page(reported[1]).rows() if len(row) == 3}
    assert found["train.epochs"] == "7"
    assert found["data.label_names"] == "a, b"
    assert found["data.test"] == "unset"
    assert found["train.gradient_checkpointing"] == "false"


def test_figures_of_another_adapter_do_not_come_first(tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    path = run.evaluation / "test.json"
    files.write_json(path, files.read_json(path) | {"adapter_sha256": "d" * 64})
    html = write_report(run, manifest).read_text(encoding="utf-8")
    assert "Accuracy on 60 validation rows" in html
    assert "belong to another adapter" in html


def test_given_rows_have_not_the_tokens_of_a_split_of_their_name(tmp_path: Path) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    data = run.data() | {"tokens": {"train": 6326080, "test": 400}}
    given = [evaluation("test", LABELS, 90, False), evaluation("train", LABELS, 10, False)]
    lines = speeds(manifest, data, run.recipe(), 3, given)
    assert [line.tokens for line in lines] == [3 * 6326080, 400, None]


def test_the_first_glance_is_the_test_split_without_the_validation_caveat(reported: tuple[RunFolder, str]) -> None:
    _, html = reported
    glance = html[html.index('class="glance"') : html.index("<h2>")]
    one = files.read_json(reported[0].evaluation / "test.json")
    text = " ".join(re.sub("<[^>]*>", " ", glance).replace("&nbsp;", " ").split())
    shown = [with_interval(one[key]).split(" %", 1) for key in ("accuracy", "macro_f1")]
    assert f"Accuracy on 90 test rows {shown[0][0]} % 95 % interval{shown[0][1]}; macro F1 {shown[1][0]} %" in text
    assert f"({shown[1][1].strip()})" in text
    fails = " ".join(html[html.index('id="fails"') :].split())
    pair = confused(one)[0]
    assert (
        f"{wrong_rows(one)} of 90 test rows are labelled wrongly. Most often {pair.true} is taken for {pair.predicted} ("
        in fails
    )
    assert f"({pair.count} of {sum(one['confusion'][LABELS.index(pair.true)])})" in fails
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


def test_hostile_names_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [HOSTILE, '--><b>$x$ & "q"', "体育", "two\nlines"]
    run, manifest = make_run(tmp_path / "it's <b>", labels, source=f"{HOSTILE}.csv")
    files.write_json(run.evaluation / "more.json", evaluation("more", labels, 50, chose=False))
    (run.evaluation / "test.json").unlink()
    with_names = {"architecture", "confusion-validation", "by-validation-3"}  # one of each kind that shows labels

    def drawn(folder: Path, name: str, draw: Draw) -> Written:
        return write_figure(folder, name, draw) if name in with_names else Written(name, b"", b"")

    monkeypatch.setattr("newslora.report.report.write_figure", drawn)
    html = write_report(run, manifest).read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.seen
    assert page.seen.count("b") == 2  # the captions' own: Figure 1 and Figure 2
    assert any(f"{HOSTILE}.csv" in row for row in page.rows())
    assert {row[0] for row in page.rows()} >= {HOSTILE, labels[1], "体育"}
    assert html.count("<summary>more: 50 rows, accuracy") == 1
    figures = list(run.figures.glob("*.svg"))
    assert len(figures) == 2 * len(with_names)
    for path in figures:
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
        one = evaluation("test", names, 100, False)
        one["confusion"] = [[1000 + place] * many for place in range(many)]
        console = Console(width=width, record=True, file=io.StringIO())
        for table in evaluation_tables(one, width):
            console.print(table)
        text = console.export_text()
        return " ".join(text.split()), all(text.count(f" {1000 + place:,} ") >= many for place in range(many))

    assert shown(4, 80)[1]
    assert shown(20, 200)[1]
    for many in (2, 8, 9, 23):  # 8 are the last that fit
        text, whole = shown(many, 80)
        assert ("confusion (rows: true" in text) == whole
        assert ("labels are confused takes a wider screen; it stands in evaluation/test.json" in text) != whole


@pytest.mark.parametrize("too_many", [False, True])
def test_a_confusion_matrix_too_large_to_draw_is_said_to_be(
    too_many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of labels would take an hour and end in an error: a PNG has at most 65,536 dots a side."""
    drawn: list[str] = []
    monkeypatch.setattr(
        "newslora.report.report.write_figure", lambda folder, name, draw: drawn.append(name) or Written(name, b"", b"")
    )
    for module in ("report.report", "cli.evaluation_tables"):
        monkeypatch.setattr(f"newslora.{module}.MOST_LABELS", len(LABELS) - too_many)
    run, manifest = make_run(tmp_path / "run", LABELS)
    html = write_report(run, manifest).read_text(encoding="utf-8")
    told = "The confusion matrix of 4 labels is too large to draw; it stands in evaluation/test.json."
    assert (told in html) is too_many
    assert ("confusion-test" in drawn) is not too_many
    assert ("Confusion matrix of the test rows" in html) is not too_many
    _, narrow, *_ = evaluation_tables(evaluation("test", LABELS, 90, False), width=10)
    assert ("a figure in the report" in str(narrow.caption)) is not too_many


def test_an_audit_of_these_rows_is_shown_and_one_of_others_is_not(tmp_path: Path, no_figures: None) -> None:
    run, manifest = make_run(tmp_path / "runs" / "one", LABELS)
    labels = {"split": "train", "judged_by": "words", "its_accuracy": 0.9, "likely_wrong": 37, "rows": 1000}
    leak = {"split": "test", "repeats": "train", "equal_rows": 2, "near_rows": 13, "with_another_label": 4, "rows": 90}
    split = {"sha256": "56" * 32, "text_columns": ["text"], "label_column": "label"}
    audit = {"splits": [split], "labels": [labels], "leakage": [leak]}
    files.write_json(run.path.parent / "audit.json", audit)
    assert "not audited yet" in write_report(run, manifest).read_text(encoding="utf-8")
    files.write_json(run.path.parent / "audit.json", audit | {"splits": [split | {"sha256": "12" * 32}]})
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


@pytest.mark.parametrize(
    "damage", ['{"adapter_sha', "[]", '{"adapter_sha256": 1}', '{"adapter_sha256": "THIS", "examples": 1}']
)
def test_damaged_examples_are_made_anew_and_a_damaged_test_of_them_is_named(
    damage: str, tmp_path: Path, no_figures: None
) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    examples, tested = run.evaluation / "explanations.json", run.evaluation / "faithfulness.json"
    files.write_text(examples, damage.replace("THIS", manifest["adapter_sha256"]))
    assert "has no adapter yet" in write_report(run, manifest).read_text(encoding="utf-8")  # to explain anything with
    assert not examples.exists()
    files.write_text(tested, '{"adapter_sha')
    with pytest.raises(RunError, match=r"faithfulness\.json is damaged: .* --check SOURCE"):
        write_report(run, manifest)


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


@pytest.mark.parametrize(
    ("value", "words"), [(0.44, "0.4 s"), (59.6, "1 min 0 s"), (1970.2, "32 min 50 s"), (7322, "2 h 2 min 2 s")]
)
def test_seconds(value: float, words: str) -> None:
    assert seconds(value).replace("\N{NO-BREAK SPACE}", " ") == words


def test_the_weightiest_words_are_named_in_a_sentence() -> None:
    def told(*scores: tuple[str, float]) -> str:
        return weightiest({"label": "World", "words": [{"text": text, "score": score} for text, score in scores]})

    assert told() == told(("a", 0.0)) == "No word weighs more than the others."
    assert told(("a", 1.0)) == "For World: “a”."
    assert told(("a", -1.0), ("b", 0.1)) == "Against World: “a”."  # a tenth is not marked
    assert told(("c", 0.5), ("a", 1.0), ("b", -0.9), ("a", 0.8)) == "For World: “a” and “c”; against: “b”."
    assert told(*((name, 1.0) for name in "abcde")) == "For World: “a”, “b”, “c” and “d”."
    assert told(("x" * 41, 1.0)) == f"For World: “{'x' * 40}…”."

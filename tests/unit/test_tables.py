"""Tables on screen show what data says, whatever it holds."""

from typing import Any

from newslora.cli import audit, compare
from newslora.cli.common import new_table, results
from newslora.cli.evaluation_tables import NAMES, evaluation_tables, remarks_on
from newslora.metrics.basic import SHARES
from newslora.report.findings import METRICS
from newslora.report.pages import percent


def test_what_titles_headings_cells_and_sentences_hold_is_shown_as_it_stands() -> None:
    table = new_table("[bold]news[/bold]", "[red]label", "rows", words=("[red]label",))
    table.add_row("[link]a :car:", "12")
    console = results()
    with console.capture() as captured:
        console.print(table)
        console.print("[b]3 rows :car:")
    shown = captured.get()
    assert all(text in shown for text in ("[bold]news[/bold]", "[red]label", "[link]a :car:", "[b]3 rows :car:"))
    assert [column.justify for column in table.columns] == ["left", "right"]


def test_screen_and_report_name_the_same_metrics() -> None:
    assert set(NAMES) == set(METRICS)
    assert set(SHARES) < set(NAMES)


def rows_of(table: Any) -> list[list[str]]:
    """The headings, then the rows."""
    cells = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [list(row) for row in zip(*cells, strict=True)]


def rate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "interval": [low, high]}


NOTHING = {"value": None, "interval": None, "reason": "no rows"}


def evaluated() -> dict[str, Any]:
    """An evaluation in which no two numbers are alike."""
    agencies = [{"name": f"agency {n}", "rows": 40 - n, "accuracy": rate(0.9, 0.8, 0.95)} for n in range(12)]
    bins = [
        {"low": 0.4, "high": 0.4667, "rows": 1, "confidence": 0.45, "accuracy": rate(1, 0.2, 1)},
        {"low": 0.6, "high": 0.6667, "rows": 59, "confidence": 0.643, "accuracy": rate(0.5, 0.4, 0.61)},
        {"low": 0.9333, "high": 1.0, "rows": 140, "confidence": 0.987, "accuracy": rate(0.97, 0.93, 0.99)},
    ]
    level = {"coverage": rate(0.96, 0.93, 0.98), "answered": rate(0.7, 0.63, 0.76)}
    level |= {"accuracy_of_answered": rate(0.94, 0.89, 0.97), "mean_set_size": 1.305}
    error = {"label": "a", "predicted": "b", "confidence": 0.9876, "text": "two\nlines"}
    before, after = {"ece": 0.1234, "log_loss": 0.5}, {"ece": 0.0456, "log_loss": 0.25}
    return {
        "name": "test", "rows": 200, "source": "x.csv", "labels": ["a", "b"], "note": "A note.", "loss": 0.25,
        "accuracy": rate(0.8512, 0.8, 0.9), "macro_f1": rate(0.7, 0.6, 0.75), "mcc": rate(0.5, 0.4, 0.6),
        "per_class": {
            "a": {
                "precision": rate(0.5, 0.41, 0.59), "recall": rate(0.625, 0.52, 0.73), "f1": rate(0.555, 0.44, 0.66),
                "rows": 1234,
            },
            "b": {"precision": NOTHING, "recall": rate(1, 0.9, 1), "f1": {"value": 0.25, "interval": None}, "rows": 75},
        },
        "confusion": [[1000, 234], [5, 70]],
        "reliability": {"bins": bins},
        "accuracy_by": [{"by": "agency", "kind": "name", "groups": agencies}, {"by": "length", "kind": "number"}],
        "abstention": {"levels": [{"level": 0.9} | level, {"level": 0.99, "reason": "Too few."}]},
        "errors": [error | {"row": 1000 + number} for number in range(7)],
        "calibration": {"temperature": 1.5, "reason": None, "validation_rows": 1640, "before": before, "after": after},
    }  # fmt: skip


def test_an_evaluation_stands_in_its_columns() -> None:
    whole, classes, confusion, reliability, agency, abstention, errors = evaluation_tables(evaluated())
    assert rows_of(whole)[1:] == [
        ["accuracy", "85.12%", "80.00% to 90.00%"], ["macro F1", "70.00%", "60.00% to 75.00%"],
        ["MCC", "0.5000", "0.4000 to 0.6000"], ["loss", "0.2500", ""],
    ]  # fmt: skip
    assert rows_of(classes) == [
        ["label", "precision", "recall", "F1", "rows"],
        ["a", "50 (41-59)", "62.5 (52-73)", "55.5 (44-66)", "1,234"],
        ["b", "-", "100 (90-100)", "25", "75"],
    ]
    assert rows_of(confusion) == [["", "a", "b"], ["a", "1,000", "234"], ["b", "5", "70"]]
    assert rows_of(reliability)[1:] == [
        ["60 to 67", "59", "64.3", "50 (40-61)"],
        ["93 to 100", "140", "98.7", "97 (93-99)"],
    ]
    assert reliability.caption == "Left out: bins of less than 1 % of the rows (1 in all)."
    assert len(rows_of(agency)) == 11
    assert rows_of(agency)[1] == ["agency 0", "40", "90 (80-95)"]
    assert agency.caption == "2 more in the JSON."
    assert rows_of(abstention) == [
        ["level", "right label in set", "answered", "right of those", "set size"],
        ["0.9", "96 (93-98)", "70 (63-76)", "94 (89-97)", "1.30"],
    ]
    assert rows_of(errors)[:2] == [["row", "label, predicted", "sure", "text"], ["1,000", "a, b", "0.988", "two lines"]]
    assert (len(rows_of(errors)), errors.title) == (6, "the 5 most confidently wrong rows")


def test_a_hundred_per_cent_are_all_rows() -> None:
    one = evaluated()
    for value, shown in ((0.9996, "99.9"), (0.99949, "99.9"), (0.9984, "99.8"), (1.0, "100")):
        one["per_class"]["a"]["recall"] = rate(value, 0.998, 1)
        assert rows_of(evaluation_tables(one)[1])[1][2] == f"{shown} (99.8-100)"
    for share, digits, shown in (
        (0.9996, 1, "99.9"),
        (1, 1, "100.0"),
        (0.99996, 2, "99.99"),
        (0.9453, 2, "94.53"),
        (0, 1, "0.0"),
    ):
        assert percent(share, digits) == f"{shown}\N{NO-BREAK SPACE}%"


def test_what_is_to_be_said_of_an_evaluation() -> None:
    one = evaluated()
    temperature = (
        "Temperature 1.500, fitted on 1,640 validation rows: ECE 12.34% before, 4.56% after; log loss 0.5000 before, 0.2500 "
        "after."
    )
    assert list(remarks_on(one)) == [temperature, "Too few.", "A note."]
    one["calibration"]["reason"] = "all are right"
    assert list(remarks_on(one | {"note": None})) == ["Temperature 1: all are right.", "Too few."]
    thresholds = {"rows": 80, "before": {"macro_f1": 0.1}, "after": {"macro_f1": 0.2}}
    several = {"thresholds": thresholds, "at_half": {"macro_f1": 0.3}, "macro_f1": rate(0.4, 0.3, 0.5), "note": None}
    assert list(remarks_on(several)) == [
        "Thresholds tuned on 80 validation rows: macro F1 10.00% with 0.5 for every label, 20.00% tuned; on these rows 30.00% "
        "and 40.00%."
    ]


def test_labels_by_themselves_stand_in_their_columns() -> None:
    own = {
        "threshold": 0.3, "average_precision": rate(0.75, 0.7, 0.8),
        "counts": {"true_positives": 1007, "false_positives": 8, "false_negatives": 9, "true_negatives": 10},
    }  # fmt: skip
    one = evaluated()
    one |= {"multi_label": True, "per_class": {"a": one["per_class"]["a"] | own}}
    whole, _, by_label, *_ = evaluation_tables(one)
    assert rows_of(whole)[1][0] == "subset accuracy"
    heads = ["label", "threshold", "avg. precision", "right", "wrong", "missed"]
    assert rows_of(by_label) == [heads, ["a", "0.300", "75 (70-80)", "1,007", "8", "9"]]


def test_a_comparison_stands_in_its_columns() -> None:
    runs = [
        {"name": "one", "accuracy": rate(0.9, 0.85, 0.95), "macro_f1": rate(0.8, 0.75, 0.84), "loss": 0.5},
        {"name": "two", "accuracy": rate(0.7, 0.65, 0.75), "macro_f1": rate(0.6, 0.55, 0.64), "loss": 0.75},
    ]
    differences = {
        "accuracy": rate(0.2, 0.1, 0.3),
        "macro_f1": rate(-0.04, -0.05, 0.03),
        "loss": rate(-0.25, -0.3, -0.2),
    }
    pair = {
        "runs": ["two", "one"], "differences": differences, "only_first_right": 1041, "only_second_right": 12,
        "p_holm": 0.0123, "shown": True,
    }  # fmt: skip
    scatter = {"mean": 0.8, "standard_deviation": 0.0125, "lowest": 0.75, "highest": 0.85}
    seeds = {"name": "seed", "seeds": [1, 2, 3], "accuracy": scatter, "loss": scatter}
    found = compare.tables({"rows": 1200, "source": "x.csv", "runs": runs, "pairs": [pair], "seeds": [seeds]})
    assert [rows_of(table) for table in found] == [
        [
            ["", "run", "accuracy, %", "macro F1, %", "loss"],
            ["1", "one", "90.00 (85.0-95.0)", "80.00 (75.0-84.0)", "0.5000"],
            ["2", "two", "70.00 (65.0-75.0)", "60.00 (55.0-64.0)", "0.7500"],
        ],
        [
            ["", "accuracy", "macro F1", "loss", "only one", "p"],
            ["2-1", "+20.0 (+10.0 +30.0)", "-4.0 (-5.0 +3.0)", "-0.250 (-0.300 -0.200)", "1,041:12", "0.012*"],
        ],
        [
            ["recipe", "seeds", "accuracy, %", "loss"],
            ["seed", "3", "80.00, 1.25 (75.00-85.00)", "0.8000, 0.0125 (0.7500-0.8500)"],
        ],
    ]


def audited() -> dict[str, Any]:
    lengths = {"mean": 21.5, "median": 20.0, "percentile_99": 80.0, "longest": 1100}
    tokens = lengths | {"limit": 64, "cut_rows": 7}
    splits = [
        {"name": name, "rows": rows, "quarantined": 5 + rows, "labels": {"a": rows // 4, "b": rows - rows // 4}}
        | {
            "characters": lengths,
            "tokens": tokens,
            "quarantine_reasons": {"empty text": 1005} if name == "train" else {},
        }
        for name, rows in (("train", 1000), ("test", 200))
    ]
    between = {"splits": ["train", "test"], "equal_pairs": 3, "near_pairs": 1204, "with_other_labels": 2}
    leak = {"split": "test", "repeats": "train", "equal_rows": 3, "near_rows": 7, "with_another_label": 2, "rows": 200}
    effect = {"split": "test", "caveat": "A caveat.", "rise": rate(0.0125, 0.001, 0.02)}
    effect |= {"all": rate(0.9, 0.8, 0.95) | {"rows": 200}, "clean": rate(0.89, 0.79, 0.94) | {"rows": 190}}
    effect |= {"leaked": rate(1, 0.7, 1) | {"rows": 10}}
    labels = [
        {"split": "train", "judged_by": "words", "its_accuracy": 0.91, "likely_wrong": 12, "rows": 1000},
        {
            "split": "test",
            "judged_by": None,
            "its_accuracy": None,
            "likely_wrong": 0,
            "rows": 200,
            "reason": "of one label",
        },
    ]
    damage = [
        {"kind": kind, "meaning": f"{kind}s", "split": split, "rows": rows, "of": 1000}
        for split, kind, rows in (
            ("train", "tag", 4),
            ("train", "entity", 5),
            ("test", "tag", 6),
            ("test", "entity", 7),
        )
    ]
    return {
        "splits": splits, "duplicates": {"between": [between, between | {"splits": ["test", "test"]}]}, "leakage": [leak],
        "leakage_effect": [effect], "labels": labels, "damage": damage, "run": {"path": "run", "trained_on": ["train"]},
    }  # fmt: skip


def test_an_audit_stands_in_its_columns() -> None:
    assert [rows_of(table) for table in audit.tables(audited())] == [
        [
            ["split", "usable", "set aside", "labels"],
            ["train", "1,000", "1,005", "a 250 (25.0%), b 750 (75.0%)"],
            ["test", "200", "205", "a 50 (25.0%), b 150 (75.0%)"],
        ],
        [
            ["split", "", "median", "mean", "99 of 100", "longest", "over 64"],
            ["train", "characters", "20", "22", "80", "1,100", ""],
            ["", "tokens", "20", "22", "80", "1,100", "7"],
            ["test", "characters", "20", "22", "80", "1,100", ""],
            ["", "tokens", "20", "22", "80", "1,100", "7"],
        ],
        [
            ["splits", "equal pairs", "near pairs", "labels differ"],
            ["train and test", "3", "1,204", "2"],
            ["inside test", "3", "1,204", "2"],
        ],
        [["", "train", "test"], ["a likely wrong label", "12", "-"], ["tags", "4", "6"], ["entitys", "5", "7"]],
    ]


def test_what_is_to_be_said_of_an_audit() -> None:
    assert audit.sentences(audited()) == [
        "Rows of train set aside: empty text (1,005 rows).",
        "Leakage: 10 of 200 rows of test (5.00%) repeat rows of train: 3 equal, 7 nearly; 2 of them have another label there.",
        "Accuracy on test: 90.00% (80.00% to 95.00%) on all 200 rows, 89.00% (79.00% to 94.00%) on 190 clean rows, 100.00% "
        "(70.00% to 100.00%) on 10 leaked rows. Leaks raise it by +1.25 points (+0.10 to +2.00). A caveat.",
        "Labels judged by words: train (right on 91.0%).",
        "Labels not judged, for of one label: test.",
    ]
    clean = audited() | {"leakage_effect": [], "labels": [], "run": {"path": "run", "trained_on": []}}
    clean["leakage"][0] |= {"equal_rows": 0, "near_rows": 0}
    assert audit.sentences(clean)[1:] == [
        "No row of test repeats a row of train, exactly or nearly.",
        "The run was trained on none of these rows, so leaks between them say nothing of its accuracy.",
    ]

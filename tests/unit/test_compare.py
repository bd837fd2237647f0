"""Whole run folders compared: differences planted and absent, seeds of one recipe, and rows that are not the same."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_parts import data_facts, manifest_facts
from scipy import stats

import newslora
from newslora import files
from newslora.cli.app import main
from newslora.cli.compare import sentences, tables
from newslora.config import load_recipe
from newslora.errors import DataError, NewsloraError, RunError, SettingsError
from newslora.evaluation.compare import _p
from newslora.evaluation.paired import Scores
from newslora.evaluation.seeds import Group, compare_groups, few_seeds_note, group_runs
from newslora.metrics.single_label import full_metrics
from newslora.runfolder import RunFolder

LABELS = ("Sports", "World")
ROWS = 400


@dataclass
class Maker:
    """Makes run folders whose stored evaluation is what a test says."""

    folder: Path

    def __call__(
        self,
        name: str,
        right: Sequence[bool] | np.ndarray[Any, Any],
        *,
        labels: tuple[str, ...] = LABELS,
        evaluation: str = "test",
        sha256: str = "rows",
        numbers: Sequence[int] | None = None,
        note: str | None = None,
        train_sha256: str = "train",
        by_length: bool | None = False,
        weights: str | None = "weights",
        **changes: Any,
    ) -> Path:
        recipe = load_recipe("quickstart", {key.replace("__", "."): value for key, value in changes.items()})
        run = RunFolder.create(self.folder / name, recipe)
        data = data_facts(list(labels))
        data["splits"] = {"train": data["splits"]["train"] | {"sha256": train_sha256}}
        files.write_json(run.data_file, data)
        manifest = manifest_facts(list(labels)) | {"adapter_sha256": name}
        manifest["backbone"]["sha256"] = weights
        if by_length is not None:  # runs of before tell nothing of it
            manifest["training"]["by_length"] = by_length
        files.write_json(run.manifest_file, manifest)
        self.score(run, right, labels, evaluation, sha256, numbers, note)
        return run.path

    def score(
        self,
        run: RunFolder,
        right: Sequence[bool] | np.ndarray[Any, Any],
        labels: tuple[str, ...] = LABELS,
        evaluation: str = "test",
        sha256: str = "rows",
        numbers: Sequence[int] | None = None,
        note: str | None = None,
    ) -> None:
        """Rows are Sports and World by turns, whatever the ids of the labels."""
        true = np.array([labels.index(LABELS[place % 2]) for place in range(len(right))])
        predicted = np.where(right, true, (true + 1) % len(labels))
        probabilities = np.full((len(right), len(labels)), 0.1 / (len(labels) - 1))
        probabilities[np.arange(len(right)), predicted] = 0.9
        record = {
            "name": evaluation,
            "source": "news.csv",
            "sha256": sha256,
            "note": note,
            "adapter_sha256": run.path.name,
            "precision": "fp32",
            "seconds": 1.0,
        }
        files.write_json(run.evaluation / f"{evaluation}.json", record | full_metrics(true, probabilities, labels))
        with (run.evaluation / f"{evaluation}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["row", "text", "label", "predicted", "probability", *(f"p({name})" for name in labels)])
            for place, row in enumerate(probabilities):
                number = place + 1 if numbers is None else numbers[place]
                writer.writerow(
                    [number, f"text {number}", labels[true[place]], labels[predicted[place]], row.max(), *row]
                )


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def wrong_on(*places: int, rows: int = ROWS) -> np.ndarray[Any, Any]:
    right = np.ones(rows, dtype=bool)
    right[list(places)] = False
    return right


def test_a_planted_difference_is_found_with_its_size_and_its_rows(make: Maker, tmp_path: Path) -> None:
    good = make("good", wrong_on(0, 1))
    bad = make("bad", wrong_on(0, *range(100, 140)))
    output = tmp_path / "out" / "result.json"
    result = newslora.compare([good, bad], output=output)
    (pair,) = result["pairs"]
    assert (pair["only_first_right"], pair["only_second_right"], pair["shown"]) == (40, 1, True)
    assert pair["differences"]["accuracy"]["value"] == pytest.approx(39 / ROWS)
    assert pair["sentence"].startswith("good is more accurate than bad: by 9.75 points (95 % interval ")
    loss = pair["differences"]["loss"]
    assert loss["interval"][0] < loss["value"] < loss["interval"][1] < 0
    ends = f"{-loss['interval'][1]:.4f} to {-loss['interval'][0]:.4f}"
    assert f"The loss of good is lower, by {-loss['value']:.4f} (95 % interval {ends})." in pair["sentence"]
    assert json.loads(output.read_text()) == result
    with (tmp_path / "out" / "result-rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in rows] == [2, *range(101, 141)]
    assert rows[0] == {
        "row": "2", "text": "text 2", "label": "World", "predicted good": "Sports", "p good": "0.900000",
        "predicted bad": "World", "p bad": "0.900000",
    }  # fmt: skip
    turned = newslora.compare([bad, good])["pairs"][0]["sentence"]
    assert turned == pair["sentence"]


def test_no_difference_is_said_plainly_where_none_is_shown(make: Maker) -> None:
    first, second = make("first", wrong_on(*range(20))), make("second", wrong_on(*range(10, 32)))
    (pair,) = newslora.compare([first, second])["pairs"]
    assert pair["shown"] is False
    assert pair["sentence"].startswith("No difference shown between first and second: +0.50 points")
    same = make("same", wrong_on(*range(20)))
    assert newslora.compare([first, same])["pairs"][0]["sentence"] == (
        "No difference shown: first and same are right on the same rows."
    )


def test_a_difference_that_one_pair_would_show_is_not_shown_among_many(make: Maker) -> None:
    runs = [make("a", wrong_on(0, rows=100)), make("b", wrong_on(*range(1, 10), rows=100))]
    assert newslora.compare(runs)["pairs"][0]["shown"] is True  # 9 rows to 1: p = 0.021
    runs += [make("c", wrong_on(50, rows=100)), make("d", wrong_on(51, rows=100))]
    result = newslora.compare(runs)
    assert not any(pair["shown"] for pair in result["pairs"])
    assert result["differing_rows"] == 12


def test_runs_may_order_their_labels_differently(make: Maker) -> None:
    first, second = make("first", wrong_on(3, 4)), make("second", wrong_on(3), labels=LABELS[::-1])
    (pair,) = newslora.compare([first, second])["pairs"]
    assert (pair["only_first_right"], pair["only_second_right"]) == (0, 1)
    assert pair["differences"]["macro_f1"]["value"] == pytest.approx(pair["differences"]["accuracy"]["value"], abs=1e-4)


def test_test_rows_come_before_validation_rows_and_selection_bias_is_passed_on(make: Maker) -> None:
    paths = [make(name, wrong_on(1)) for name in ("a", "b")]
    for path in paths:
        make.score(RunFolder(path), wrong_on(), evaluation="validation", sha256="others", note="optimistic")
    assert newslora.compare(paths)["evaluation"] == "test"
    alone = [make(name, wrong_on(1), evaluation="validation", note="optimistic") for name in ("c", "d")]
    assert newslora.compare(alone)["note"] == "optimistic"
    for path in alone:  # of two evaluations in common that of rows which chose nothing counts
        make.score(RunFolder(path), wrong_on(2), evaluation="zeitung", sha256="others")
    assert newslora.compare(alone)["evaluation"] == "zeitung"
    for path in alone:
        (path / "evaluation" / "zeitung.json").unlink()
    make.score(RunFolder(alone[1]), wrong_on(1), evaluation="validation", note="other columns")
    assert newslora.compare(alone)["note"] == "c: optimistic d: other columns"


def test_validation_rows_cut_from_one_file_by_other_seeds_are_not_the_same_rows(make: Maker) -> None:
    first = make("first", wrong_on(1), evaluation="validation", numbers=range(ROWS))
    second = make("second", wrong_on(1), evaluation="validation", numbers=range(5, ROWS + 5))
    with pytest.raises(
        DataError, match=r"no scored rows in common.*first has validation \(400 rows of news.csv\).*--data"
    ):
        newslora.compare([first, second])


@pytest.mark.parametrize(
    ("spoil", "kind", "told"),
    [
        (lambda make: [make("a", wrong_on(1))], SettingsError, "at least two runs"),
        (lambda make: [make("a", wrong_on(1)), make.folder / "a"], SettingsError, "named twice"),
        (lambda make: [make("a", wrong_on(1)), make.folder / "b"], RunError, "There is no run folder"),
        (
            lambda make: [make("a", wrong_on(1)), make("b", wrong_on(1), sha256="x")],
            DataError,
            "no scored rows in common",
        ),
        (
            lambda make: [make("a", wrong_on(1)), make("b", wrong_on(1), labels=("Sports", "World", "News"))],
            DataError,
            "know other labels",
        ),
        (
            lambda make: [make("a", wrong_on(rows=1)), make("b", wrong_on(rows=1))],
            DataError,
            "a single row in common",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(
    make: Maker, spoil: Callable[[Maker], list[Path]], kind: type[NewsloraError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        newslora.compare(spoil(make))


def test_the_same_file_read_otherwise_or_in_part_does_not_stand_in(make: Maker) -> None:
    first, second = make("first", wrong_on(1)), make("second", wrong_on(1, 2))
    make.score(RunFolder(first), wrong_on(), evaluation="other", numbers=range(ROWS))
    result = newslora.compare([first, second])
    assert (result["evaluation"], result["pairs"][0]["only_first_right"]) == ("test", 1)


def test_what_another_adapter_scored_is_not_compared(make: Maker) -> None:
    first, second = make("first", wrong_on(1)), make("second", wrong_on(1, 2))
    path = second / "evaluation" / "test.json"
    files.write_json(path, files.read_json(path) | {"adapter_sha256": "another"})
    with pytest.raises(DataError, match=r"no scored rows in common.*second has none"):
        newslora.compare([first, second])


def test_an_unfinished_run_and_a_damaged_evaluation_are_said(make: Maker) -> None:
    first, second = make("first", wrong_on(1)), make("second", wrong_on(1))
    table = second / "evaluation" / "test.csv"
    table.write_text(table.read_text().replace("0.9", "high"))
    with pytest.raises(RunError, match=r"test.csv is damaged.*newslora evaluate"):
        newslora.compare([first, second])
    (second / "manifest.json").unlink()
    with pytest.raises(RunError, match="did not finish"):
        newslora.compare([first, second])


def scattered(share: float, seed: int, rows: int = 500) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(rows) < share


def test_seeds_of_one_recipe_are_one_group_wherever_their_data_lay(make: Maker) -> None:
    runs = [
        make("a", wrong_on(*range(10)), train__seed=1, data__source="here.csv"),
        make("b", wrong_on(*range(20)), train__seed=2, data__source="there.csv"),
        make("c", wrong_on(*range(30)), train__seed=3, lora__rank=8),
        make("d", wrong_on(*range(30)), train__seed=4, train_sha256="others"),
    ]
    result = newslora.compare(runs)
    (group,) = result["seeds"]
    assert (group["runs"], group["seeds"]) == ([0, 1], [1, 2])
    assert group["name"] == "quickstart, rank 4, data train"
    accuracy = group["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.9625)
    assert accuracy["standard_deviation"] == pytest.approx(0.025 / np.sqrt(2))
    assert (accuracy["lowest"], accuracy["highest"]) == (0.95, 0.975)
    assert [pair["seeds_of_one_recipe"] for pair in result["pairs"]] == [True] + [False] * 5
    assert result["recipes"] == []  # the others have one run each
    assert "takes other seeds" in result["scope"]


def test_seeds_of_one_backbone_are_one_group_wherever_it_lay(make: Maker) -> None:
    runs = [make("a", wrong_on(1), train__seed=1, model__backbone="/here/models/bert")]
    runs.append(make("b", wrong_on(2), train__seed=2, model__backbone="models/bert"))
    assert [group["seeds"] for group in newslora.compare(runs)["seeds"]] == [[1, 2]]
    runs.append(make("c", wrong_on(3), train__seed=3, model__backbone="models/bert", weights="others"))
    assert [group["seeds"] for group in newslora.compare(runs)["seeds"]] == [[1, 2]]
    names = {group.name for group in group_runs([RunFolder(run) for run in runs])}
    assert names == {"quickstart, backbone bert weights", "quickstart, backbone bert others"}
    unknown = [make(f"u{n}", wrong_on(n), train__seed=n, model__backbone=f"hub/{n}", weights=None) for n in (1, 2)]
    assert newslora.compare(unknown)["seeds"] == []


def test_a_rerun_is_no_other_seed(make: Maker) -> None:
    runs = [
        make("a", wrong_on(*range(10)), train__seed=1),
        make("again", wrong_on(*range(10)), train__seed=1),
        make("b", wrong_on(*range(20)), train__seed=2),
    ]
    result = newslora.compare(runs)
    assert [(group["runs"], group["seeds"]) for group in result["seeds"]] == [([0, 2], [1, 2])]
    assert result["repeats_note"].startswith("again repeats a: of the same recipe and seed")
    assert result["repeats_note"] in sentences(result)
    assert all(pair["seeds_of_one_recipe"] for pair in result["pairs"])
    alone = newslora.compare(runs[:2])
    assert alone["seeds"] == []
    assert "takes other seeds" in alone["scope"]


def test_recipes_whose_seeds_do_not_scatter_are_not_told_apart(make: Maker) -> None:
    good = [make(f"g{seed}", wrong_on(seed), train__seed=seed) for seed in (1, 2)]
    bad = [make(f"b{seed}", wrong_on(*range(seed, seed + 80)), train__seed=seed, lora__rank=8) for seed in (1, 2)]
    (one,) = newslora.compare([*good, *bad])["recipes"]
    assert one["accuracy"]["rows_interval"][0] > 0.1
    assert (one["accuracy"]["seeds_interval"], one["accuracy"]["shown"]) == (None, False)
    assert one["sentence"].startswith("No difference shown between the recipes")
    assert "what other seeds would give is not known" in one["sentence"]


@pytest.mark.parametrize(
    ("setting", "value", "groups"),
    [
        ("data__workers", 2, 1), ("train__log_every_steps", 7, 1), ("train__save_every_steps", 9, 1),
        ("data__max_quarantine_share", 0.5, 1), ("train__batch_size", 7, 0), ("evaluation__calibrate", False, 0),
    ],
)  # fmt: skip
def test_what_decides_nothing_of_a_run_parts_no_seeds(make: Maker, setting: str, value: Any, groups: int) -> None:
    runs = [make("a", wrong_on(1), train__seed=1), make("b", wrong_on(2, 3), train__seed=2, **{setting: value})]
    assert len(newslora.compare(runs)["seeds"]) == groups


def test_seeds_go_by_what_the_order_of_rows_was_not_by_how_it_was_asked_for(make: Maker) -> None:
    runs = [
        make("old", wrong_on(1), by_length=None, train__seed=1, train__group_by_length=False),
        make("unset", wrong_on(2), train__seed=2),
        make("grouped", wrong_on(3), by_length=True, train__seed=3),
        make("asked", wrong_on(4), by_length=True, train__seed=4, train__group_by_length=True),
    ]
    assert [group["seeds"] for group in newslora.compare(runs)["seeds"]] == [[1, 2], [3, 4]]


def test_recipes_differ_only_where_rows_and_seeds_both_say_so(make: Maker) -> None:
    def runs(name: str, shares: Sequence[float], rank: int) -> list[Path]:
        return [
            make(f"{name}-{seed}", scattered(share, hash_of(name, seed)), train__seed=seed, lora__rank=rank)
            for seed, share in enumerate(shares)
        ]

    def hash_of(name: str, seed: int) -> int:
        return 1000 * ord(name) + seed

    good, bad = runs("g", (0.95, 0.955, 0.945), 4), runs("b", (0.85, 0.855, 0.845), 8)
    result = newslora.compare([*good, *bad])
    (one,) = result["recipes"]
    assert one["accuracy"]["shown"] is True
    assert one["sentence"].startswith("The recipe (quickstart, rank 4) is more accurate than (quickstart, rank 8): by ")
    low, high = one["accuracy"]["seeds_interval"]
    assert f", {100 * low:.2f} to {100 * high:.2f} over other seeds." in one["sentence"]
    (turned,) = newslora.compare([*bad, *good])["recipes"]
    assert turned["sentence"] == one["sentence"]
    assert result["scope"] is None
    # the same mean, but seeds that scatter more than the recipes differ: many rows alone would call it a difference
    wild = runs("w", (0.95, 0.99, 0.75), 16)
    (one,) = newslora.compare([*good, *wild])["recipes"]
    assert one["accuracy"]["rows_interval"][0] > 0
    assert one["accuracy"]["seeds_interval"][0] < 0
    assert one["accuracy"]["shown"] is False
    assert one["sentence"].startswith("No difference shown between the recipes")


def test_the_worth_of_few_seeds() -> None:
    three = few_seeds_note([Group("a", (0, 1, 2), (1, 2, 3))])
    assert three is not None
    assert "0.5 to 6 times" in three  # sqrt(2 / 7.378) and sqrt(2 / 0.0506), as tables of chi-square have it
    assert few_seeds_note([Group("a", (0,), (1,)), Group("b", tuple(range(1, 7)), tuple(range(6)))]) is None
    two = few_seeds_note([Group("a", (0, 1, 2, 3), (1, 2, 3, 4)), Group("b", (4, 5), (1, 2))])
    assert two is not None
    assert two.startswith("2 seeds tell little")  # the fewest decide: sqrt(1 / 5.0239) and sqrt(1 / 0.00098)
    assert "0.4 to 32 times" in two


def test_recipes_are_compared_by_their_means_over_seeds_by_welchs_interval() -> None:
    """Welch 1947, with Satterthwaite's degrees of freedom; all three pairs together hold in 95 of 100 cases."""
    truth = np.zeros(200, dtype=np.int64)
    wrong = (10, 20, 60, 70, 74)
    runs = [Scores(truth, (np.arange(200) < count).astype(np.int64), np.full((200, 2), 0.5)) for count in wrong]
    values = [1 - count / 200 for count in wrong]
    scores = [dict.fromkeys(("accuracy", "macro_f1", "loss"), value) for value in values]
    groups = [Group("a", (0, 1, 2), (1, 2, 3)), Group("b", (3, 4), (1, 2)), Group("c", (2,), (1,))]
    groups.append(Group("d", (1, 0), (1, 2)))
    found = compare_groups(groups, runs, scores)
    assert [one["groups"] for one in found] == [["a", "b"], ["a", "d"], ["b", "d"]]
    first, second = np.array(values[:3]), np.array(values[3:])
    difference = first.mean() - second.mean()
    assert found[0]["accuracy"]["difference"] == pytest.approx(difference)
    errors = [own.var(ddof=1) / len(own) for own in (first, second)]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 1)
    half = stats.t.ppf(1 - 0.05 / 3 / 2, freedom) * np.sqrt(sum(errors))
    assert found[0]["accuracy"]["seeds_interval"] == pytest.approx([difference - half, difference + half])
    assert found[0]["accuracy"]["shown"] is False
    low, high = found[2]["accuracy"]["rows_interval"]
    assert found[2]["accuracy"]["difference"] == pytest.approx(-0.285)
    assert low < -0.285 < high < 0


@pytest.mark.parametrize(("value", "told"), [(5e-5, "below 0.0001"), (0.0039, "= 0.0039"), (0.0213, "= 0.021")])
def test_a_p_value_in_words(value: float, told: str) -> None:
    assert _p(value) == told


def test_tables_fit_eighty_columns_and_the_command_says_what_the_function_does(
    make: Maker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "80")
    runs = [make(f"20261125-101530-news-{n}", scattered(0.5 + n / 10, n), train__seed=n) for n in range(4)]
    result = newslora.compare(runs)
    for table in tables(result):
        assert Console(width=200).measure(table).minimum <= 80
    assert main(["compare", *map(str, runs), "-o", str(tmp_path / "r.json")]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    flat = " ".join(shown.split())
    assert all(" ".join(sentence.split()) in flat for sentence in sentences(result))
    assert "<.0001*" in flat
    assert main(["compare", str(runs[0])]) == 2
    assert "at least two runs" in capsys.readouterr().err


def test_an_older_runs_macro_averages_are_made_anew_beside_another(make: Maker) -> None:
    """Older newsloras took a class that is neither among the rows nor predicted for 0."""
    labels = (*LABELS, "Business")
    right = [place % 4 > 0 for place in range(40)]
    paths = [make(name, right, labels=labels) for name in ("old", "new")]
    old = paths[0] / "evaluation" / "test.json"
    record = json.loads(old.read_text())
    mean = record["macro_f1"]["value"]
    record["macro_f1"] = {"value": mean * 2 / 3, "interval": [0.3, 0.6]}
    record["per_class"]["Business"] |= {"f1": {"value": 0.0, "interval": [0.0, 0.0]}}
    old.write_text(json.dumps(record))
    result = newslora.compare(paths)
    assert [one["macro_f1"]["value"] for one in result["runs"]] == pytest.approx([mean, mean])
    assert result["note"] is None
    told = newslora.evaluate(paths[0])
    assert told["macro_f1"]["value"] == mean * 2 / 3
    assert "counts as 0 in its macro averages, which leave it out today" in told["note"]
    assert newslora.evaluate(paths[1])["note"] is None

"""Several labels a row: whatever way they are written they are the same labels, and no row is lost."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_parts import data_facts

from newslora import files
from newslora.config import DataSettings, load_recipe, parse_assignment
from newslora.data.articles import ArticleSet, read_articles
from newslora.data.batches import Rows
from newslora.data.combinations import split_labels, strata
from newslora.data.labels import LabelSet
from newslora.data.packing import pack
from newslora.data.sources import parse_source
from newslora.data.splits import draw_by_share, load_splits
from newslora.data.tokens import TokenTable
from newslora.errors import DataError
from newslora.exporting.held import held_rows
from newslora.runfolder import RunFolder

LABELS = [["Sports", "World"], [], ["World"], ["Sports"], ["World", "Business"], ["World", "World"]]
names = st.text(
    st.characters(
        exclude_characters=";|[",  # [ begins a list
        exclude_categories=["Cs"],
    ),
    min_size=1,
).filter(lambda name: name == name.strip() and name)


def write_json(path: Path, labels: list[Any]) -> Path:
    lines = [json.dumps({"text": f"text {number}", "labels": each}) for number, each in enumerate(labels)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read(path: Path, labels: LabelSet | None = None, **more: Any) -> tuple[ArticleSet, LabelSet]:
    wanted = DataSettings(source=str(path), multi_label=True, **more)
    return read_articles(parse_source(str(path)), None, wanted, labels)


def reasons(found: ArticleSet) -> list[str]:
    return [bad.reason for bad in found.quarantined]


@settings(max_examples=200)
@given(labels=st.lists(names, max_size=6), separator=st.sampled_from([";", "|", "; ", "||"]))
def test_a_text_with_separators_is_the_list(labels: list[str], separator: str) -> None:
    wanted = tuple(sorted(set(labels)))
    assert split_labels(labels, separator) == wanted
    assert split_labels(separator.join(labels), separator) == wanted
    assert split_labels(separator.join(reversed(labels)) + separator, separator) == wanted
    assert split_labels(list(wanted) * 2, separator) == wanted


@given(
    value=st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4))
)
def test_any_value_is_labels_or_a_reason(value: Any) -> None:
    found = split_labels(value, ";")
    if isinstance(found, tuple):
        assert list(found) == sorted(set(found))
        assert all(key and key == key.strip() for key in found)
    else:
        assert "label" in found


@given(labels=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_a_written_list_is_the_list(labels: list[str]) -> None:
    wanted = split_labels(labels, ";")
    assert split_labels(json.dumps(labels), ";") == wanted
    assert split_labels(json.dumps(labels, ensure_ascii=False, indent=1), ";") == wanted
    assert split_labels(repr(labels), ";") == wanted
    assert split_labels(f" {labels!r}\n", ";") == wanted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", ()),
        ("[0, 2.0]", ("0", "2")),
        ("[Sports]", ("[Sports]",)),
        ("[A];[B]", ("[A]", "[B]")),
        ("['Sports' 'World']", None),  # NumPy's, which Python would run together
        ("['Sports', None]", None),
        ("['Sports', '\\x']", None),
        ("[Sports, World]", None),
        ("[" * 100_000 + "]", ("[" * 100_000 + "]",)),
        ('[["a"]]', None),
        ("[null]", None),
    ],
)  # fmt: skip
def test_what_looks_like_a_list_is_read_or_refused(text: str, found: tuple[str, ...] | None) -> None:
    read = split_labels(text, ";")
    assert isinstance(read, str) if found is None else read == found


def test_written_lists_need_no_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = [["one", "['Arts, culture']"], ["two", "['Arts']"], ["three", "['culture']"], ["four", "[]"]]
        csv.writer(stream).writerows([["text", "labels"], *rows])
    found, labels = read(path)
    assert labels.names == ("Arts", "Arts, culture", "culture")
    assert found.indicators.sum(axis=1).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("value", [None, float("nan"), [None], ["a", float("nan")], [["a"]], [{"a": 1}], "a\udcff"])
def test_what_is_no_list_of_labels(value: Any) -> None:
    assert isinstance(split_labels(value, ";"), str)


def test_csv_json_lines_and_parquet_agree(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(len(LABELS))]
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [["text", "labels"], *([t, "|".join(v)] for t, v in zip(texts, LABELS, strict=True))]
        )
    write_json(tmp_path / "a.jsonl", LABELS)
    pq.write_table(pa.table({"text": texts, "labels": LABELS}), tmp_path / "a.parquet")
    found = [read(tmp_path / f"a.{kind}", label_separator="|") for kind in ("csv", "jsonl", "parquet")]
    for articles, labels in found:
        assert labels.names == ("Business", "Sports", "World")
        assert len(articles.quarantined) == 0
        carried = [[labels.names[k] for k in np.flatnonzero(row)] for row in articles.indicators]
        assert carried == [sorted(set(each)) for each in LABELS]


def test_numbers_take_names(tmp_path: Path) -> None:
    found, labels = read(
        write_json(tmp_path / "a.jsonl", [[0, 2], [1], []]), label_names=("World", "Sports", "Business")
    )
    assert labels.names == ("World", "Sports", "Business")
    assert found.indicators.tolist() == [[True, False, True], [False, True, False], [False, False, False]]


def test_unknown_and_missing_labels_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    _, labels = read(write_json(tmp_path / "a.jsonl", LABELS))
    found, _ = read(write_json(tmp_path / "b.jsonl", [["sports"], ["World", "Golf"], None, [["World"]], []]), labels)
    assert found.rows.tolist() == [1, 5]
    assert found.indicators.tolist() == [[False, True, False], [False, False, False]]
    assert reasons(found) == [
        "unknown label 'Golf': not among the training labels (Business, Sports, World)",
        "no labels: an empty list says that none applies",
        "labels that are not a list of names or numbers",
    ]


def test_a_list_where_one_label_is_expected_says_what_to_set(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [["World"], "World", "Sports"])
    found, _ = read_articles(parse_source(str(path)), None, DataSettings(source=str(path)), None)
    assert reasons(found) == ["a list of labels: where rows carry several, set data.multi_label=true"]


def test_a_label_that_holds_the_separator_is_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [["Arts; culture"], ["World"]])
    with pytest.raises(DataError, match=r"'Arts; culture'.*label_separator"):
        read(path)
    assert read(path, label_separator="|")[1].names == ("Arts; culture", "World")


def csv_of(path: Path, labels: list[str]) -> Path:
    path.write_text(
        "".join(["text\tlabels\n", *(f"text {n}\t{one}\n" for n, one in enumerate(labels))]), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("other", [",", "|", "; ", "\t"])
def test_labels_joined_by_another_separator_are_refused_with_the_setting(other: str, tmp_path: Path) -> None:
    labels = [other.join(one) for one in (["World"], ["World", "Tech"], ["Tech", "Money"], ["World", "Money", "Tech"])]
    path = write_json(tmp_path / "a.jsonl", labels * 5)  # a text in JSON has separators too
    if other == "; ":
        assert read(path)[1].names == ("Money", "Tech", "World")
        return
    with pytest.raises(DataError, match=r"holds two labels with data\.label_separator, ';'.*3 of 4 labels") as caught:
        read(path)
    key, value = parse_assignment(re.findall(r"--set '(data\.label_separator=.*?)'", str(caught.value))[0])
    assert (key, value) == ("data.label_separator", other)
    assert read(path, label_separator=other)[1].names == ("Money", "Tech", "World")


def test_labels_that_hold_a_comma_of_their_own_are_left_alone(tmp_path: Path) -> None:
    whole = ["Arts, culture", "Food, drink", "World"]
    assert read(csv_of(tmp_path / "a.csv", whole * 3))[1].names == tuple(whole)
    pairs = ["a, x", "a, y", "b, x", "b, y", "a, z", "b, z"]
    assert read(csv_of(tmp_path / "b.csv", [*pairs, "a, x;b, z"]))[1].names == tuple(sorted(pairs))
    assert read(write_json(tmp_path / "c.jsonl", [[one] for one in pairs]))[1].names == tuple(sorted(pairs))


def test_one_label_is_not_enough(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [["World"], []] * 10)
    with pytest.raises(DataError, match="at least two labels"):
        load_splits(DataSettings(source=str(path), multi_label=True, validation_rows=2), 0)


def test_validation_rows_hold_each_frequent_combination_by_its_share(tmp_path: Path) -> None:
    labels = [["World"]] * 200 + [["World", "Sports"]] * 100 + [[]] * 60 + [["Sports", f"rare {n}"] for n in range(40)]
    path = write_json(tmp_path / "a.jsonl", labels)
    splits = load_splits(DataSettings(source=str(path), multi_label=True, validation_rows=40), 7)
    assert splits.validation.combinations is not None
    counts = np.bincount(splits.validation.labels)
    assert counts[:3].tolist() == [20, 10, 6]
    assert counts[3:].sum() == 4
    assert len(splits.train) == 360
    assert splits.record()["multi_label"] is True
    assert not set(splits.train.rows.tolist()) & set(splits.validation.rows.tolist())


def test_a_combination_that_has_just_a_row_to_give_is_drawn_by_its_share() -> None:
    places = np.repeat(np.arange(6), [8, 4, 1, 4, 2, 1])
    assert strata(places, 5).tolist() == np.repeat([1, 2, 0, 3, 0, 0], [8, 4, 1, 4, 2, 1]).tolist()
    alone = np.repeat(np.arange(3), [8, 4, 1])  # one row cannot be shared out: it joins the first combination
    assert strata(alone, 4).tolist() == [1] * 8 + [2] * 4 + [1]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_combinations_can_be_drawn_from(data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, 12), min_size=2, max_size=80)), dtype=np.int64)
    rows = data.draw(st.integers(1, len(places) - 1))
    drawn = draw_by_share(strata(places, rows), rows, 3)
    assert len(set(drawn.tolist())) == len(drawn) == rows


def test_an_export_is_judged_by_a_share_of_each_frequent_combination(tmp_path: Path) -> None:
    """One row of a combination of its own must not turn the draw into chance."""
    labels = [["World"]] * 200 + [["World", "Sports"]] * 100 + [["Sports"]] * 99 + [[]]
    data = write_json(tmp_path / "a.jsonl", labels)
    for seed in range(4):
        recipe = load_recipe("quickstart", {"data.multi_label": True, "train.seed": seed})
        run = RunFolder.create(tmp_path / str(seed), recipe)
        files.write_json(run.data_file, data_facts(["Sports", "World"]) | {"multi_label": True})
        held = held_rows(run, str(data), None, 40)
        assert held.name == "'a.jsonl' (drawn from 400)"
        counts = np.bincount(held.articles.labels)
        assert counts[1:3].tolist() == [10, 10]  # the single row counts with the first combination
        assert counts.sum() == 40
    assert len(held_rows(run, str(data), None, 400).articles) == 400


def test_batches_carry_indicators_in_the_order_asked_for() -> None:
    table = TokenTable.of([np.arange(1, length, dtype=np.int32) for length in (4, 9, 2, 6)])
    combinations = np.array([[True, False], [True, True], [False, False]])
    rows = Rows(table, np.array([0, 1, 2, 1]), 0, combinations)
    for batch in (rows.batch([3, 2, 0]), pack(rows, [3, 2, 0])):
        assert batch.labels.dtype.is_floating_point
        assert batch.labels.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_class_labels_in_lists_of_a_data_set_become_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.Sequence(datasets.ClassLabel(names=["joy", "anger"]))}
    )
    rows = {"text": ["a b", "c d", "e f"], "labels": [[0], [1, 0], []]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    found, labels = read(tmp_path / "set")
    assert labels.names == ("joy", "anger")
    assert found.indicators.tolist() == [[True, False], [True, True], [False, False]]

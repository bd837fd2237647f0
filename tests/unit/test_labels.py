"""Labels are what the data meant: words, numbers with names or without, and one spelling each."""

import json
from pathlib import Path
from typing import Any

import pytest
from article_parts import AG, ids, labelled, read, reasons, write

from newslora.config import load_recipe, parse_assignment
from newslora.data.articles import read_articles, require_labels
from newslora.data.labels import label_key, make_label_set, numbered
from newslora.data.sources import parse_source
from newslora.errors import DataError


def test_words_name_themselves_in_alphabetical_order(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", ["World", " Sports ", "Business", "World"]))
    assert labels.names == ("Business", "Sports", "World")
    assert labels.base is None
    assert ids(found) == [2, 1, 0, 2]
    assert len(found.quarantined) == 0


def test_words_take_the_order_of_the_given_names(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", ["Sports", "World"]), label_names=AG)
    assert labels.names == ("World", "Sports")  # AG News' order, not the alphabet's; labels the rows lack are left out
    assert ids(found) == [1, 0]


def test_words_that_the_given_names_do_not_know_name_themselves(tmp_path: Path) -> None:
    _, labels = read(labelled(tmp_path / "a.jsonl", ["sport", "politics"]), label_names=AG)
    assert labels.names == ("politics", "sport")


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ([0, 1, 2, 3], 0),
        ([1, 2, 3, 4], 1),
        (["1", "2", "3", "4"], 1),
        ([1.0, 2.0, 3.0, 4.0], 1),
        ([" 0 ", "1", "2", "3"], 0),
        ([0, 3, 0, 3], 0),
        ([4, 2, 4, 2], 1),
    ],
)
def test_numbers_take_names_from_0_or_1(values: list[Any], base: int, tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", values), label_names=AG)
    assert labels.names == AG
    assert labels.base == base
    assert ids(found) == [int(value) - base for value in values]


def test_numbers_that_do_not_show_where_they_start_are_refused(tmp_path: Path) -> None:
    """1 to 3 of four names may be the last three from 0 or the first three from 1."""
    with pytest.raises(DataError, match=r"names 4 labels .* numbers its labels 1 to 3\."):
        read(labelled(tmp_path / "a.jsonl", [1, 2, 3]), label_names=AG)


def test_numbers_without_names_name_themselves_in_order_of_number(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", [10, 9, 2.0, "10"]))
    assert labels.names == ("2", "9", "10")
    assert ids(found) == [2, 1, 0, 2]


def test_codes_with_leading_zeros_are_names(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", ["01", "1", "02"]))
    assert labels.names == ("01", "02", "1")
    assert ids(found) == [0, 2, 1]
    assert len(found.quarantined) == 0


@pytest.mark.parametrize("odd", ["9" * 5_000, "٣", "²", "-1", "1.5"])  # an Arabic digit
def test_odd_numbers_are_names(odd: str, tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", [odd, "1"]))
    assert set(labels.names) == {odd, "1"}
    assert len(found) == 2


def test_whole_numbers_of_csv_take_the_given_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,0.0\nb,1.0\nc,\nd,2.0\ne,3.0\n")
    found, labels = read(path, label_names=AG)
    assert (labels.names, ids(found), reasons(found)) == (AG, [0, 1, 2, 3], ["no label"])
    assert ids(read(labelled(tmp_path / "b.jsonl", [3, 2.0, "1.0", "World"]), labels)[0]) == [3, 2, 1, 0]


def test_labels_named_like_fractions_are_found_again() -> None:
    labels = make_label_set(("0.0", "1.0"))
    assert [labels.find(value) for value in ("0.0", "1.0", 1.0, 1, "1")] == [0, 1, 1, 1, 1]


def test_booleans_are_two_labels(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", [True, False, True]))
    assert labels.names == ("False", "True")
    assert ids(found) == [1, 0, 1]


@pytest.mark.parametrize(
    ("value", "key"),
    [(3, "3"), (3.0, "3"), ("3", "3"), (" 3 ", "3"), (3.5, "3.5"), (None, ""), (float("nan"), ""), ("", ""), (0, "0"),
     (float("inf"), ""), (True, "True"), ("3.0", "3"), (" 30.00 ", "30"), ("0.0", "0"), ("01.0", "01.0"), ("3.50", "3.50"),
     (".0", ".0"), ("-1.0", "-1.0")],
)  # fmt: skip
def test_one_spelling_a_label(value: Any, key: str) -> None:
    assert label_key(value) == key


def test_numbers_beyond_the_given_names_are_refused(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", [0, 1, 2, 3])
    with pytest.raises(DataError, match=r"names 2 labels \(a, b\).*numbers its labels 0 to 3") as caught:
        read(path, label_names=("a", "b"))
    assert "--set 'data.label_names=[]'" in str(caught.value)
    assert read(path, label_names=())[1].names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("values", "told"),
    [([0, 1], "0 and 1"), ([1, 2], "1 and 2"), ([0, 3], "0 and 3"), ([1, 2, 4], "1, 2 and 4"), ([0, 1, 2], "0 to 2")],
)
def test_names_of_a_recipe_are_refused_where_not_all_of_them_occur(
    values: list[int], told: str, tmp_path: Path
) -> None:
    path = labelled(tmp_path / "a.jsonl", values * 3)
    recipe = load_recipe("seed", {"data.source": str(path)})
    with pytest.raises(DataError, match=rf"names 4 labels \(World, .*numbers its labels {told}\.") as caught:
        read_articles(parse_source(str(path)), None, recipe.data, None)
    assert "'data.label_names=[]'" in str(caught.value)
    ways = {"[]": tuple(map(str, values)), json.dumps(list(AG)): AG}
    for way, names in ways.items():
        key, value = parse_assignment(f"data.label_names={way}")
        if values[0] == 1 and value and values[-1] < 4:
            continue  # nothing shows where counting starts, whoever gave the names
        told_so = load_recipe("seed", {"data.source": str(path), key: value}).data
        assert read_articles(parse_source(str(path)), None, told_so, None)[1].names == names


def test_names_of_a_recipe_stand_where_all_of_them_occur_or_the_data_has_them(tmp_path: Path) -> None:
    recipe = load_recipe("seed")
    path = labelled(tmp_path / "a.jsonl", [4, 2, 1, 3])
    assert read_articles(parse_source(str(path)), None, recipe.data, None)[1].names == AG
    path = labelled(tmp_path / "b" / "a.jsonl", [0, 2])
    (tmp_path / "b" / "classes.txt").write_text("\n".join(AG))
    assert read_articles(parse_source(str(path)), None, recipe.data, None)[1].names == AG
    (tmp_path / "b" / "classes.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(DataError, match="numbers its labels 0 and 2"):
        read_articles(parse_source(str(path)), None, recipe.data, None)


def test_no_names_also_turns_off_a_classes_file(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", [0, 1])
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read(path)[1].names == ("a", "b")
    assert read(path, label_names=())[1].names == ("0", "1")
    assert read(path, label_names=("c", "d"))[1].names == ("c", "d")


def test_case_is_forgiven_where_it_distinguishes_nothing() -> None:
    labels = make_label_set(("World", "Sports"))
    assert [labels.find(value) for value in ("world", "SPORTS", "World", "Word", None)] == [0, 1, 0, None, None]
    exact = make_label_set(("US", "us"))
    assert [exact.find(value) for value in ("US", "us")] == [0, 1]


def test_numbered_labels_may_be_written_as_names_too() -> None:
    labels = make_label_set(AG, base=1)
    assert [labels.find(value) for value in (1, "4", 4.0, "sports", 0, 5)] == [0, 3, 3, 1, None, None]


@pytest.mark.parametrize(
    ("keys", "base", "found"),
    [
        (["0", "1"], 0, {"0": 1, "1": 0, "2": None}), (["4", "1", ""], 1, {"1": 1, "2": 0, "0": None}),
        (["1", "2"], None, {"1": None}),  # nothing shows where they start
        (["0", "4"], None, {"0": None}), (["0", "World"], None, {"0": None}),
    ],
)  # fmt: skip
def test_rows_that_number_labels_learnt_from_words_are_read_by_the_given_names(
    keys: list[str], base: int | None, found: dict[str, int | None]
) -> None:
    labels = numbered(make_label_set(("Sports", "World")), keys, AG)  # World is the first of AG News' names
    assert labels.base == base
    assert {key: labels.find(key) for key in found} == found
    assert (labels.names, labels.find("world")) == (("Sports", "World"), 1)


def test_an_unknown_label_is_set_aside_with_the_known_ones(tmp_path: Path) -> None:
    _, labels = read(labelled(tmp_path / "a.jsonl", ["World", "Sports"]))
    found, same = read(labelled(tmp_path / "b.jsonl", ["World", "Wrold", None, "", "Sports"]), labels)
    assert same is labels
    assert found.rows.tolist() == [1, 5]
    assert [bad.row for bad in found.quarantined] == [2, 3, 4]
    assert reasons(found) == [
        "unknown label 'Wrold': not among the training labels (Sports, World)",
        "no label",
        "no label",
    ]
    assert "text 1" in next(iter(found.quarantined)).excerpt


def test_an_object_is_no_label(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", ["A", {"id": 0}, "B"]))
    assert labels.names == ("A", "B")
    assert reasons(found) == ["no label: the column holds an object"]
    assert reasons(read(tmp_path / "a.jsonl", labels)[0]) == ["no label: the column holds an object"]


def test_labels_are_learned_from_usable_rows_only(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": "A"}, {"text": "", "label": "Ghost"}, {"text": "y", "label": "B"}]
    assert read(write(tmp_path / "a.jsonl", rows))[1].names == ("A", "B")


@pytest.mark.parametrize(("values", "seen"), [(["World"] * 5, "only 'World'"), ([0, 0.0, "0"], "only '0'")])
def test_one_label_is_not_enough(values: list[Any], seen: str, tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", values))
    with pytest.raises(DataError, match=f"at least two labels; .* has {seen}.*label_column") as caught:
        require_labels(labels, found)
    assert "(now 'label')" in str(caught.value)
    found, labels = read(labelled(tmp_path / "a.jsonl", [*values, "other"]))
    require_labels(labels, found)

"""Rows become articles or are set aside with a reason; none is lost, and labels are what the data meant."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from newslora.config import DataSettings, load_recipe, parse_assignment
from newslora.data import articles, store
from newslora.data.articles import (
    ArticleSet,
    check_quarantine,
    is_empty,
    read_articles,
    require_labels,
    write_quarantine,
)
from newslora.data.labels import LabelSet, label_key, make_label_set
from newslora.data.sources import parse_source
from newslora.data.splits import load_splits
from newslora.errors import DataError

AG = ("World", "Sports", "Business", "Sci/Tech")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(path: Path, labels: list[Any]) -> Path:
    return write(path, [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)])


def read(path: Path, labels: LabelSet | None = None, **more: Any) -> tuple[ArticleSet, LabelSet]:
    return read_articles(parse_source(str(path)), None, DataSettings(source=str(path), **more), labels)


def ids(found: ArticleSet) -> list[int]:
    return found.labels.tolist()


def reasons(found: ArticleSet) -> list[str]:
    return [bad.reason for bad in found.quarantined]


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
    assert "text 1" in found.quarantined[0].excerpt


def test_columns_of_any_name_are_read_once_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("artikel,rubrik\none,World\ntwo,Sports\n")
    with pytest.raises(DataError, match=r"its columns are 'artikel', 'rubrik'"):
        read(path)
    found, labels = read(path, text_columns=("artikel",), label_column="rubrik")
    assert list(found.texts) == ["one", "two"]
    assert labels.names == ("Sports", "World")


def test_a_file_without_a_header_is_read_when_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("one text,World\ntwo texts,Sports\n")
    with pytest.raises(DataError, match=r"data\.header=false"):
        read(path)
    found, labels = read(path, header=False)
    assert list(found.texts) == ["one text", "two texts"]
    assert labels.names == ("Sports", "World")


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"headline": "Oil"}, "an object"), (["Oil", "climbs"], "a list"), (True, "true or false"), ({}, "an object")],
)
def test_what_is_no_text_is_set_aside(value: Any, kind: str, tmp_path: Path) -> None:
    rows = [{"title": "t", "text": "one", "label": "A"}, {"title": "t", "text": value, "label": "B"}]
    found, labels = read(write(tmp_path / "a.jsonl", [*rows, {"title": "t", "text": 3, "label": "C"}]))
    assert labels.names == ("A", "C")
    assert reasons(found) == [f"no text: the column 'text' holds {kind}"]


def test_an_object_is_no_label(tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", ["A", {"id": 0}, "B"]))
    assert labels.names == ("A", "B")
    assert reasons(found) == ["no label: the column holds an object"]
    assert reasons(read(tmp_path / "a.jsonl", labels)[0]) == ["no label: the column holds an object"]


def test_text_is_the_columns_joined(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"title": " a ", "text": "b", "label": "x"},
        {"title": None, "text": "b", "label": "y"},
        {"title": "", "text": 5, "label": "y"},
        {"title": " ", "text": None, "label": "y"},
        {"text": float("nan"), "label": "y"},
    ]
    found, _ = read(write(tmp_path / "a.jsonl", rows))
    assert list(found.texts) == ["a b", "b", "5"]
    assert reasons(found) == ["empty text", "empty text"]
    assert found.text_columns == ("title", "text")
    assert found.label_column == "label"


def test_broken_encoding_costs_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"label,text\nA,fine\nB,K\xfcche\nB,fine\nK\xfcche,fine\nA,\x00 nul\n")
    found, labels = read(path)
    assert labels.names == ("A", "B")
    assert found.rows.tolist() == [1, 3, 5]
    assert reasons(found) == [
        "broken encoding: not valid UTF-8; save the file as UTF-8 (in Excel, 'CSV UTF-8')",
        "broken encoding: the label is not valid UTF-8",
    ]
    write_quarantine(tmp_path / "q.jsonl", [found])
    assert len((tmp_path / "q.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_labels_are_learned_from_usable_rows_only(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": "A"}, {"text": "", "label": "Ghost"}, {"text": "y", "label": "B"}]
    assert read(write(tmp_path / "a.jsonl", rows))[1].names == ("A", "B")


def test_missing_cells_of_parquet(tmp_path: Path) -> None:
    table = pa.table({"label": pa.array([1.0, None, float("nan"), 0.0]), "text": ["a", "b", "c", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    found, labels = read(tmp_path / "a.parquet", make_label_set(("n", "p"), base=0))
    assert ids(found) == [1]
    assert reasons(found) == ["no label", "no label", "empty text"]
    assert labels.names == ("n", "p")


UNSEEN = ["\u200b", "\u200d", "\x00\x01\x02", "\ufeff", "\u00ad", "\u202e \u202d", "\u2060\n\u3000", "\x7f"]


def test_a_text_in_which_nothing_can_be_seen_is_empty(tmp_path: Path) -> None:
    seen = [
        "\u200bx",
        "e\u0301",
        "\u202e\u202d7",
        "\U0001f600",
        "\ue000",
        "\u0378",
    ]  # the last two: private, not assigned
    assert all(map(is_empty, ["", " \t\n", *UNSEEN]))
    assert not any(map(is_empty, [*seen, "\udcff"]))  # broken, which is another reason
    rows = [{"text": text, "label": "AB"[place % 2]} for place, text in enumerate([*UNSEEN, *seen])]
    found, _ = read(write(tmp_path / "a.jsonl", rows))
    assert reasons(found) == ["empty text"] * len(UNSEEN)
    assert list(found.texts) == seen


def test_numbers_that_are_none_are_missing(tmp_path: Path) -> None:
    lines = ['{"text": 1e999, "label": "A"}', '{"text": NaN, "label": "A"}', '{"text": "x", "label": -1e999}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines, '{"text": "inf", "label": "A"}', '{"title": 1e999, "text": 7, "label": "B"}']))
    found, labels = read(path)
    assert (list(found.texts), labels.names) == (["inf", "7"], ("A", "B"))
    assert reasons(found) == ["empty text", "empty text", "no label"]


@pytest.mark.parametrize(("values", "seen"), [(["World"] * 5, "only 'World'"), ([0, 0.0, "0"], "only '0'")])
def test_one_label_is_not_enough(values: list[Any], seen: str, tmp_path: Path) -> None:
    found, labels = read(labelled(tmp_path / "a.jsonl", values))
    with pytest.raises(DataError, match=f"at least two labels; .* has {seen}.*label_column") as caught:
        require_labels(labels, found)
    assert "(now 'label')" in str(caught.value)
    found, labels = read(labelled(tmp_path / "a.jsonl", [*values, "other"]))
    require_labels(labels, found)


def test_rows_without_any_label_are_counted_not_called_one_label(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", [None, "", None])
    with pytest.raises(DataError, match=r"3 of 3 rows .* cannot be used .*no label \(3 rows\)"):
        load_splits(DataSettings(source=str(path)), 0, tmp_path / "q.jsonl")
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 3


def set_with(good: int, bad: int, path: Path) -> ArticleSet:
    return read(labelled(path, ["A"] * (good - 1) + ["B"] * min(good, 1) + [None] * bad), make_label_set(("A", "B")))[0]


@pytest.mark.parametrize(
    ("good", "bad", "limit", "stops"),
    [(99, 1, 0.01, False), (98, 2, 0.01, True), (99, 1, 0.0, True), (100, 0, 0.0, False), (1, 9, 1.0, False),
     (0, 5, 1.0, True)],
)  # fmt: skip
def test_more_than_the_allowed_share_stops(good: int, bad: int, limit: float, stops: bool, tmp_path: Path) -> None:
    found = set_with(good, bad, tmp_path / "a.jsonl")
    assert (len(found), len(found.quarantined)) == (good, bad)
    if not stops:
        check_quarantine(found, limit, None)
        return
    with pytest.raises(DataError, match=rf"^{bad} of {good + bad} rows of .*no label \({bad} rows\)") as caught:
        check_quarantine(found, limit, tmp_path / "q.jsonl")
    assert str(tmp_path / "q.jsonl") in str(caught.value)
    assert f"allows {limit:.1%}" in str(caught.value)


def test_the_commonest_reasons_come_first(tmp_path: Path) -> None:
    rows = [{"text": "", "label": "A"}] * 3 + [{"text": "x", "label": None}] * 2 + [{"text": "x", "label": "A"}]
    found = read(write(tmp_path / "a.jsonl", rows), make_label_set(("A", "B")))[0]
    with pytest.raises(DataError, match=r"empty text \(3 rows\); no label \(2 rows\)"):
        check_quarantine(found, 0.1, None)


def test_the_quarantine_file_names_source_row_reason_and_excerpt(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,text\nA,fine\nB\nB,fine\n" + "C," + " " * 500 + "\n")
    found, _ = read(path)
    write_quarantine(tmp_path / "q.jsonl", [found, found])
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert lines[:2] == lines[2:]
    assert [(line["source"], line["row"], line["reason"]) for line in lines[:2]] == [
        (str(path), 2, "ragged line: 1 cells where 2 are expected"),
        (str(path), 4, "empty text"),
    ]
    assert lines[0]["excerpt"] == '{"label": "B"}'
    assert len(lines[1]["excerpt"]) == 200


def test_the_quarantine_file_has_a_line_a_row_for_every_reader(tmp_path: Path) -> None:
    text = "one\x85two\u2028three\u2029four"  # line ends to Unicode, bare in JSON
    rows = [{"text": text, "label": label} for label in ("A", "B", None, text)]
    found, _ = read(write(tmp_path / "a.jsonl", rows), make_label_set(("A", "B")))
    write_quarantine(tmp_path / "q.jsonl", [found])
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == [3, 4]
    assert [json.loads(line["excerpt"])["text"] for line in lines] == [text, text]
    assert text in lines[1]["reason"]


def test_deep_json_neither_crashes_nor_loses_its_row(tmp_path: Path) -> None:
    """Around the depth that Python's JSON reader gives up, reading may work where showing the row does not."""
    depths = [*range(1, 1_100), 200_000]  # later Pythons read deeper
    rows = [json.dumps({"text": "x", "label": label}) for label in "AB"]
    deep = ['{"label": "A", "text": ' + "[" * depth + "]" * depth + "}" for depth in depths]
    more = ["[" * depth + "]" * depth for depth in depths]
    (tmp_path / "a.jsonl").write_text("\n".join(rows + deep + more) + "\n")
    found, _ = read(tmp_path / "a.jsonl")
    assert len(found) + len(found.quarantined) == 2 + 2 * len(depths)
    assert len(found.quarantined) > len(depths)


def test_what_data_json_says_of_a_split(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", ["A", "B", None])
    found, _ = read(path)
    record = found.record()
    assert record["source"] == str(path)
    assert (record["rows"], record["quarantined"]) == (2, 1)
    assert record["text_columns"] == ["text"]
    assert len(record["sha256"]) == 64


@pytest.fixture
def spilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows outgrow memory at once."""
    monkeypatch.setattr(store, "SPILL", 8)
    monkeypatch.setattr(store, "CHUNK", 4)


def shown(found: ArticleSet, labels: LabelSet) -> Any:
    texts, aside = list(found.texts), list(found.quarantined)
    return texts, found.labels.tolist(), found.rows.tolist(), aside, found.quarantined.reasons, labels, found.record()


def test_rows_that_outgrow_memory_are_the_same_rows(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    train, test = labelled(tmp_path / "a.jsonl", ["b", "a", None] * 9), labelled(tmp_path / "b.jsonl", ["a", "c", ""])
    small = shown(*read(train)), shown(*read(test, read(train)[1]))
    assert not (tmp_path / "cache" / "articles").exists()
    request.getfixturevalue("spilled")
    assert (shown(*read(train)), shown(*read(test, read(train)[1]))) == small
    assert len(list((tmp_path / "cache" / "articles").iterdir())) == 2


@pytest.mark.usefixtures("spilled")
def test_rows_kept_in_the_cache_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = labelled(tmp_path / "a.jsonl", [1, 2, 3, 4, None])
    first = shown(*read(path, label_names=AG))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())

    def refuse(*arguments: Any) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(articles, "_read_rows", refuse)
        assert shown(*read(path, label_names=AG)) == first
        found, _ = read(copy, label_names=AG)  # the same bytes under another name, which the rows set aside then bear
        assert [bad.source for bad in found.quarantined] == [str(copy)]
        for change in ({"label_names": AG[::-1]}, {"label_column": "text", "text_columns": ("label",)}):
            with pytest.raises(AssertionError, match="read again"):
                read(path, **({"label_names": AG} | change))
        with pytest.raises(AssertionError, match="read again"):
            read(path, make_label_set(AG, base=1))
    path.write_text(path.read_text().replace("text 1", "text 7"))
    assert "text 7" in list(read(path, label_names=AG)[0].texts)


@pytest.mark.usefixtures("spilled")
def test_a_damaged_cache_or_none_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = labelled(tmp_path / "a.jsonl", ["a", "b", None] * 5)
    first = shown(*read(path))
    (entry,) = (tmp_path / "cache" / "articles").iterdir()
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(bytes(content))
    assert shown(*read(path)) == first
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NEWSLORA_CACHE", str(tmp_path / "file"))
    assert shown(*read(path)) == first


lines = st.one_of(
    st.binary(max_size=40).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")),
    st.sampled_from([b"A,fine", b"B,good", b'A,"quoted, text"', b"B,", b",x", b'"', b'A,"lost', b"A,x,y", b"A,\x00"]),
)


def broken_lines(content: list[bytes]) -> int:
    return sum(line.count(b'"') % 2 for line in content)


@settings(max_examples=300, deadline=None)
@given(content=st.lists(lines, max_size=30), good=st.integers(0, 3))
@example(content=[b'A,"lost'], good=3)
def test_random_csv_never_crashes_and_never_loses_a_row(
    content: list[bytes], good: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "random.csv"
    rows = [line for line in [b"A,one", b"B,two"] * good + content if line]
    path.write_bytes(b"\n".join([b"label,text", *rows]) + b"\n")
    try:
        found, _ = read(path)
    except DataError as error:
        assert not rows, error
        return
    write_quarantine(folder / "random-quarantine.jsonl", [found])
    total = len(found) + len(found.quarantined)
    written = (folder / "random-quarantine.jsonl").read_bytes().splitlines()  # a text's would end at U+0085 too
    assert sorted(json.loads(line)["row"] for line in written) == [bad.row for bad in found.quarantined]
    numbers = sorted(found.rows.tolist() + [bad.row for bad in found.quarantined])
    assert numbers == list(range(1, total + 1))
    if not any(b'"' in line for line in rows):
        assert total == len(rows)  # without quotes, a line is a row
    assert total >= 2 * good
    assert all(bad.reason for bad in found.quarantined)


json_lines = st.one_of(
    st.binary(max_size=40).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")),
    st.sampled_from([b'{"label": "A", "text": "x"}', b'{"label": "B"}', b'{"text": "\\ud800", "label": "B"}', b"{}"]),
    st.dictionaries(
        st.sampled_from(["label", "text", "title"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers()),
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=300, deadline=None)
@given(content=st.lists(json_lines, max_size=30))
def test_random_json_lines_never_crash_and_never_lose_a_row(
    content: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [b'{"label": "A", "text": "one"}', *(line for line in content if line.decode("utf-8", "replace").strip())]
    (folder / "random.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    found, _ = read(folder / "random.jsonl")
    write_quarantine(folder / "random-quarantine.jsonl", [found])
    assert len(found) + len(found.quarantined) == len(rows)
    assert found.texts[0] == "one"
    assert all(bad.reason for bad in found.quarantined)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=400),
    name=st.sampled_from(["r.csv", "r.tsv", "r.json", "r.jsonl", "r.parquet", "r.csv.gz", "r.jsonl.zst"]),
)
@example(content=b'[{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]', name="r.json")
@example(content=b'"\n""\n"""\n' * 20, name="r.csv")
def test_random_bytes_give_rows_or_a_data_error(
    content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:  # fmt: skip
    folder = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    try:
        found, _ = read(folder / name)
    except DataError as error:
        assert str(error)
        return
    numbers = sorted(found.rows.tolist() + [bad.row for bad in found.quarantined])
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers

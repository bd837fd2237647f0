"""Text and label columns are found by name or shape, and what cannot be found is asked for."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newslora.config import parse_assignment
from newslora.data.columns import find_label_column, find_text_columns, is_header, other_columns
from newslora.data.readers import open_file
from newslora.errors import DataError


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["label", "text"], True),
        (["Class Index", "Title", "Description"], True),
        (["class_index", "x"], True),
        ([" LABEL ", "x"], True),
        (["3", "Club wins final", "The club won."], False),
        (["1", "", "A treaty was signed."], False),
        ([" 12 ", "Club wins final", "2004"], False),
        (["artikel", "rubrik"], True),
        (["foo", "bar", "baz"], True),
        (["3", "The club won."], True),
        (["0", "1", "2"], True),
        (["3", "title", "x"], True),
        (["id", "nr", "kind", "story"], True),
        (["7", "World", "Club wins final", "The club won."], True),
        (["-1", "World", "x"], True),
        (["\u0663", "World", "x"], True),
        ([], True),
    ],
)
def test_a_first_line_is_a_header_unless_it_is_a_row_of_ag_news(cells: list[str], expected: bool) -> None:
    assert is_header(cells) is expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("label", "text"), ("text",)),
        (("Class Index", "Title", "Description"), ("Title", "Description")),
        (("description", "label", "title"), ("title", "description")),
        (("headline", "category", "link"), ("headline",)),
        (("body", "text", "label"), ("text",)),
    ],
)
def test_text_columns_by_name(columns: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert find_text_columns(columns, None, True, "label", "'x'") == expected


def test_a_table_without_columns_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({}), path)
    table = open_file(path)
    for find in (
        lambda: find_text_columns(table.columns, None, table.has_header, None, "'a.parquet'"),
        lambda: find_label_column(table.columns, None, table.has_header, [], "'a.parquet'"),
    ):
        with pytest.raises(DataError, match=r"^'a\.parquet' has no columns at all") as caught:
            find()
        assert "header" not in str(caught.value)


def test_the_label_is_never_text() -> None:
    assert find_text_columns(("title", "text"), None, True, "title", "'x'") == ("text",)
    with pytest.raises(DataError, match="give it away"):
        find_text_columns(("title", "text"), ["text", "title"], True, "title", "'x'")


def test_without_a_header_all_but_the_label_is_text() -> None:
    assert find_text_columns(("1", "2", "3"), None, False, "1", "'x'") == ("2", "3")


def test_wanted_columns_are_taken_in_their_order() -> None:
    assert find_text_columns(("a", "b", "c"), ["c", "a"], True, "b", "'x'") == ("c", "a")


def test_a_wanted_column_that_is_missing_offers_the_near_one() -> None:
    with pytest.raises(DataError, match=r"data\.text_columns names 'titel'.*Did you mean 'title'"):
        find_text_columns(("title", "label"), ["titel"], True, "label", "'x'")
    with pytest.raises(DataError, match=r"data\.label_column names 'lable'.*Did you mean 'label'"):
        find_label_column(("title", "label"), "lable", True, [], "'x'")


def test_several_columns_in_one_name_are_told_how_to_be_written() -> None:
    with pytest.raises(
        DataError, match=r"names 'title,text'.*Several are written as 'data\.text_columns=\[\"title\""
    ) as caught:
        find_text_columns(("title", "text", "label"), ["title,text"], True, "label", "'x'")
    key, value = parse_assignment(str(caught.value).rpartition("written as '")[2].rstrip("'."))
    assert (key, value) == ("data.text_columns", ["title", "text"])


def test_a_wanted_column_of_a_headerless_file_names_the_header_setting() -> None:
    with pytest.raises(DataError, match=r"data\.header=true"):
        find_label_column(("1", "2"), "kategorie", False, [], "'x'")


def test_a_number_wanted_of_named_columns_names_the_header_setting() -> None:
    with pytest.raises(DataError, match=r"label_column names '2'.*data\.header=false"):
        find_label_column(("A treaty was signed.", "World"), "2", True, [], "'x'")


def test_unknown_names_are_listed_with_an_example() -> None:
    with pytest.raises(DataError, match=r"its columns are 'foo', 'bar'\..*text_columns=\[\"foo\"\].*header=false"):
        find_text_columns(("foo", "bar"), None, True, None, "'x'")
    with pytest.raises(DataError, match=r"label_column=bar.*data\.text_columns.*data\.header=false"):
        find_label_column(("foo", "bar"), None, True, [], "'x'")
    with pytest.raises(DataError, match=r"text_columns=\[\"bar\"\]"):
        find_text_columns(("foo", "bar"), None, True, "foo", "'x'")
    with pytest.raises(DataError, match=r"'c19' \.\.\."):
        find_label_column(tuple(f"c{number}" for number in range(500)), None, True, [], "'x'")
    with pytest.raises(DataError) as caught:
        find_label_column(("word " * 2_000, "World"), None, True, [], "'x'")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(("text", "Category"), "Category"), (("label", "category"), "label"), (("topic", "class_index"), "class_index")],
)
def test_label_column_by_name(columns: tuple[str, ...], expected: str) -> None:
    assert find_label_column(columns, None, True, [], "'x'") == expected


def test_without_a_header_the_shortest_column_is_the_label() -> None:
    rows = [["3", "Club wins", "The club won the final."], ["1", "Treaty", "A treaty was signed."]]
    assert find_label_column(("1", "2", "3"), None, False, rows, "'x'") == "1"
    assert find_label_column(("1", "2"), None, False, [["A long text", "World"]], "'x'") == "2"
    with pytest.raises(DataError, match="one column"):
        find_label_column(("1",), None, False, [["text"]], "'x'")


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    with pytest.raises(DataError) as caught:
        find_text_columns(("a\x1b[31m", "Caf\u00e9", "\u202eb"), None, True, None, "'a.csv'")
    assert str(caught.value).isprintable()
    assert "'a\\x1b[31m', 'Caf\u00e9', '\\u202eb'" in str(caught.value)


def test_a_part_of_columns_that_only_training_knew_is_refused_with_what_is_missing() -> None:
    def found(columns: tuple[str, ...], usual: tuple[str, ...]) -> tuple[str, ...]:
        return find_text_columns(columns, None, True, "label", "'x'", usual)

    with pytest.raises(
        DataError, match=r"'x' has no column 'b': its columns are 'a', 'title'; training had .* 'a', 'b'\."
    ) as told:
        found(("a", "title"), ("a", "b"))
    assert "--set 'data.text_columns=[\"a\"]'" in str(told.value)
    assert found(("b", "title", "a"), ("a", "b")) == ("a", "b")
    assert found(("title", "c"), ("a", "b")) == ("title",)
    # names that anybody would look for, and numbers of a file without a header, may be others elsewhere
    assert found(("title", "text"), ("Title", "description")) == ("title", "text")
    assert found(("2", "text"), ("2", "3")) == ("text",)
    with pytest.raises(DataError, match=r"its columns are 'foo'; training had the text in 'a', 'b'\. Name one"):
        found(("foo",), ("a", "b"))


def test_other_columns_than_those_of_the_training_are_told_of() -> None:
    assert other_columns(("title", "text"), ("text",)) == (
        "The text is taken from title + text; the classifier was trained on text."
    )
    assert other_columns(("text",), ("text",)) is None
    assert other_columns(("text",), ("2", "3")) is None

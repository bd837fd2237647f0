"""Rows become articles, with a text of the columns that were meant, in memory or beyond it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from article_parts import AG, ids, labelled, read, reasons, write

from newslora.data import articles, store
from newslora.data.articles import ArticleSet, is_empty
from newslora.data.labels import LabelSet, make_label_set
from newslora.errors import DataError


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

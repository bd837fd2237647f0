"""Rows read for a trained head: its labels are the label set, whatever the rows lack, and nothing else is a label."""

from pathlib import Path
from typing import Any

import pytest
from article_parts import AG, ids, labelled, write

from newslora.config import DataSettings
from newslora.data.articles import ArticleSet, read_articles
from newslora.data.labels import LabelSet
from newslora.data.sources import parse_source
from newslora.errors import DataError


def read(path: Path, names: tuple[str, ...], **more: Any) -> tuple[ArticleSet, LabelSet]:
    return read_articles(parse_source(str(path)), None, DataSettings(source=str(path), **more), None, names=names)


def test_rows_of_some_labels_have_the_adapters_labels(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", ["Sci/Tech", "Sports", " sports "])
    found, labels = read(path, AG)
    assert labels.names == AG
    assert ids(found) == [3, 1, 1]
    held = labelled(tmp_path / "b.jsonl", ["World", "Business"])
    other, _ = read_articles(parse_source(str(held)), None, DataSettings(source=str(held)), labels)
    assert ids(other) == [0, 2]


def test_the_adapters_order_stands_whatever_the_names_of_numbers_are(tmp_path: Path) -> None:
    path = labelled(tmp_path / "a.jsonl", [1, 2, 3, 4])
    found, labels = read(path, AG, label_names=AG)
    assert (labels.names, labels.base, ids(found)) == (AG, 1, [0, 1, 2, 3])
    found, labels = read(path, AG, label_names=AG[::-1])
    assert (labels.names, labels.base, ids(found)) == (AG, None, [3, 2, 1, 0])
    held = labelled(tmp_path / "b.jsonl", [4, 1, "World"])
    settings = DataSettings(source=str(held), label_names=AG[::-1])
    assert ids(read_articles(parse_source(str(held)), None, settings, labels)[0]) == [0, 3, 0]
    found, labels = read(labelled(tmp_path / "c.jsonl", [0, 1]), AG, label_names=("Sports", "Business"))
    assert (labels.names, labels.base, ids(found)) == (AG, None, [1, 2])


def test_rows_of_several_labels_have_them_too(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": ["Sports", "World"]},
        {"text": "b", "label": []},
        {"text": "c", "label": ["Business"]},
    ]
    found, labels = read(write(tmp_path / "a.jsonl", rows), AG, multi_label=True)
    assert labels.names == AG
    assert found.indicators.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_a_label_that_the_adapter_does_not_know_is_refused(tmp_path: Path) -> None:
    path = labelled(
        tmp_path / "a.jsonl", ["Sports"] * 500 + ["Weather", "Rain", "sportz"]
    )  # fewer than would be set aside
    with pytest.raises(
        DataError, match=r"3 labels that .*\(model\.adapter\) does not know: Rain, Weather, sportz\."
    ) as caught:
        read(path, AG)
    for one in ("It knows World, Sports, Business, Sci/Tech", "Did you mean 'Sports'?", "leave model.adapter out"):
        assert one in str(caught.value)
    with pytest.raises(DataError, match=r"does not know: 1, 2\. .*\(--set 'data\.label_names="):
        read(labelled(tmp_path / "b.jsonl", [1, 2]), AG)
    with pytest.raises(DataError, match=r"numbers its labels 2 and 3.* or write the labels as words\.") as caught:
        read(labelled(tmp_path / "c.jsonl", [2, 3]), AG, label_names=AG)
    assert "[]" not in str(caught.value)


def test_rows_kept_in_the_cache_are_kept_by_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newslora.data.store.SPILL", 8)
    path = labelled(tmp_path / "a.jsonl", [1, 2, 3, 4])
    wanted = {AG: [3, 2, 1, 0], AG[::-1]: [0, 1, 2, 3], ("x", *AG): [4, 3, 2, 1]}
    for _ in range(2):  # read, then out of the cache
        for names, numbers in wanted.items():
            found, labels = read(path, names, label_names=AG[::-1])
            assert (labels.names, ids(found)) == (names, numbers)
            assert labels.find("4") == names.index("World")

"""Rows that cannot be used are set aside with a reason; none is lost, whatever a file holds."""

import json
from pathlib import Path
from typing import Any

import pytest
from article_parts import labelled, read, reasons, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from newslora.config import DataSettings
from newslora.data.articles import ArticleSet, check_quarantine, write_quarantine
from newslora.data.labels import make_label_set
from newslora.data.lines import UTF8_WAY
from newslora.data.splits import load_splits
from newslora.errors import DataError


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"headline": "Oil"}, "an object"), (["Oil", "climbs"], "a list"), (True, "true or false"), ({}, "an object")],
)
def test_what_is_no_text_is_set_aside(value: Any, kind: str, tmp_path: Path) -> None:
    rows = [{"title": "t", "text": "one", "label": "A"}, {"title": "t", "text": value, "label": "B"}]
    found, labels = read(write(tmp_path / "a.jsonl", [*rows, {"title": "t", "text": 3, "label": "C"}]))
    assert labels.names == ("A", "C")
    assert reasons(found) == [f"no text: the column 'text' holds {kind}"]


def test_broken_encoding_costs_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"label,text\nA,fine\nB,K\xfcche\nB,fine\nK\xfcche,fine\nA,\x00 nul\n")
    found, labels = read(path)
    assert "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW" in UTF8_WAY
    assert labels.names == ("A", "B")
    assert found.rows.tolist() == [1, 3, 5]
    assert reasons(found) == [
        f"broken encoding: not valid UTF-8; {UTF8_WAY}",
        f"broken encoding: the label is not valid UTF-8; {UTF8_WAY}",
    ]
    write_quarantine(tmp_path / "q.jsonl", [found])
    assert len((tmp_path / "q.jsonl").read_text(encoding="utf-8").splitlines()) == 2


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

"""Every row of any file comes out once, in order, with an answer or an error."""

import gzip
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from bulk_parts import INPUTS, OUTPUTS, ROWS, Fake, as_lines, found, given_file, run, unpacked
from bulk_parts import small as small  # a fixture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newslora.config import DataSettings
from newslora.data.readers import RawRow
from newslora.data.sources import open_table, parse_source
from newslora.errors import DataError, InterruptedRun, RunError, SettingsError
from newslora.predict import bulk, chunks
from newslora.predict.answers import Answers, Words
from newslora.predict.bulk import Counted, predict_lines, predict_stream, print_source
from newslora.predict.partial import Partial


def test_the_columns_of_the_training_are_taken_where_all_are_there(tmp_path: Path) -> None:
    """What is found by name is taken else, and told of; a choice of the user's goes before both."""
    source, output, told = tmp_path / "in.csv", tmp_path / "out.csv", []
    classifier = Fake()
    classifier.card = SimpleNamespace(label_separator="|", text_columns=("kop", "artikel"))

    def classified(line: str, **choice: Any) -> list[str]:
        source.write_text(f"{line}\none,two,three\n")
        classifier.answered.clear()
        bulk.predict_source(classifier, str(source), output, DataSettings(**choice), fresh=True, note=told.append)  # type: ignore[arg-type]
        return classifier.answered

    assert classified("artikel,text,kop") == ["three one"]
    assert classified("artikel,text,kop", text_columns=("text",)) == ["two"]
    assert told == []
    assert classified("number,text,id") == ["two"]
    assert told == ["The text is taken from text; the classifier was trained on kop + artikel."]
    with pytest.raises(DataError, match=r"has no column 'kop'.*training had the text in 'kop', 'artikel'"):
        classified("artikel,text,id")
    classifier.card.text_columns = ("2", "3")  # of a file without a header
    assert classified("artikel,text,id") == ["two"]
    assert len(told) == 1


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_every_format_in_and_out_gives_every_row_once_in_order(name: str, suffix: str, tmp_path: Path) -> None:
    output = tmp_path / f"out{suffix}"
    classifier = Fake()
    counted = run(given_file(tmp_path, name), output, classifier=classifier)
    assert counted == Counted(20, 19, 0, 1)
    rows = found(output)
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert rows[4]["error"] == "empty text"
    assert rows[4]["predicted"] is None
    expected = Fake()
    texts = [ROWS[place]["text"].strip() for place in range(20) if place != 4]
    answers = [one for some in ([0, 1, 2], [3, 4], [5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16], [17, 18])
               for one in expected.predictions([texts[place] for place in some])]  # fmt: skip
    good = [row for row in rows if row["error"] is None]
    assert [row["predicted"] for row in good] == [one.label for one in answers]
    assert [row["probability"] for row in good] == [round(one.probability, 6) for one in answers]
    assert classifier.answered == texts
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == sorted([name, output.name])


def test_columns_of_any_name_are_refused_until_named_and_never_classified(tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("artikel,rubrik\none,World\ntwo,Sports\n")
    with pytest.raises(DataError, match=r"its columns are 'artikel', 'rubrik'.*data\.text_columns.*data\.header=false"):
        run(source, output)
    told = DataSettings(text_columns=("artikel",))
    assert bulk.predict_source(Fake(), str(source), output, told) == Counted(2, 2, 0, 0)  # type: ignore[arg-type]
    assert [row["artikel"] for row in found(output)] == ["one", "two"]


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.parquet"])
def test_columns_without_rows_come_out_as_columns_without_rows(name: str, suffix: str, tmp_path: Path) -> None:
    source, output = given_file(tmp_path, name), tmp_path / f"out{suffix}"
    if name.endswith(".parquet"):
        pq.write_table(pq.read_table(source).slice(0, 0), source)
    else:
        source.write_bytes(b"id,text\n" if name == "in.csv" else gzip.compress(b"id,text\n"))
    assert run(source, output) == Counted(0, 0, 0, 0)
    columns = ["id", "text", "predicted", "probability", "error"]
    if suffix == ".parquet":
        assert pq.read_table(output).schema.names == columns
    else:
        assert unpacked(output) == ((",".join(columns) + "\r\n").encode() if ".csv" in suffix else b"")
    printed = io.StringIO()
    assert print_source(Fake(), str(source), printed, DataSettings()).rows == 0
    assert printed.getvalue() == ""


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_an_output_is_an_input_too(suffix: str, tmp_path: Path) -> None:
    """Also one of many packed pieces."""
    run(given_file(tmp_path, "in.jsonl"), tmp_path / f"out{suffix}")
    again = tmp_path / "again.jsonl"
    assert run(tmp_path / f"out{suffix}", again) == Counted(20, 19, 0, 1)
    assert [row["id"] for row in found(again)] == [row["id"] for row in ROWS]


@pytest.mark.parametrize("name", ["out.gz", "out.parquet.gz", "out.csv.bz2", "out.tsv", "out"])
def test_an_output_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"out.* ends in '.*'\. Allowed: \.csv, \.jsonl, \.parquet, \.csv\.gz"):
        run(given_file(tmp_path, "in.csv"), tmp_path / name)


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", INPUTS)
def test_a_file_with_nothing_in_it_is_refused_without_a_word_of_labels(name: str, suffix: str, tmp_path: Path) -> None:
    source, output = tmp_path / name, tmp_path / f"out{suffix}"
    source.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name} is empty: nothing in it names a column\. Make or copy it again"):
        run(source, output)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [name]


def test_no_line_on_standard_input_is_no_line_out() -> None:
    printed = io.StringIO()
    assert predict_lines(Fake(), io.BytesIO(b""), printed) == Counted(0, 0, 0, 0)
    assert printed.getvalue() == ""


LINES = b'\xef\xbb\xbftext 0\r\n \nbroken \xff bytes\ntext 3, "quoted"\ntext 4'


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_lines_on_standard_input_go_to_a_file_as_the_rows_of_one_do(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    texts = LINES.decode("utf-8-sig", "surrogateescape").splitlines()
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    from_file, piped, told = tmp_path / f"file{suffix}", tmp_path / f"piped{suffix}", []
    counted = predict_stream(Fake(), io.BytesIO(LINES), piped, progress=lambda rows, share: told.append(rows))
    assert counted == run(source, from_file) == Counted(5, 3, 0, 2)
    assert found(piped) == found(from_file)
    assert told == [0, 3, 5]
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {source.name, from_file.name, piped.name}
    assert predict_stream(Fake(), io.BytesIO(b""), piped) == Counted(0, 0, 0, 0)
    assert found(piped) == []


class Stopped(io.BytesIO):
    """Lines, and then Ctrl-C."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if block := super().read1(size):
            return block
        raise KeyboardInterrupt


def test_a_stream_that_is_stopped_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        predict_stream(Fake(), Stopped(LINES * 3), output)
    assert output.read_bytes() == b"before"
    assert not (tmp_path / "out.csv.partial").exists()


def test_a_stream_begins_anew_behind_one_that_was_killed_and_leaves_the_rows_of_a_file(tmp_path: Path) -> None:
    output, other = tmp_path / "out.csv", tmp_path / "other.csv"
    predict_stream(Fake(), io.BytesIO(LINES), other)
    with Partial.open(output, {"input": "standard input"}) as left:  # as after SIGKILL
        left.add(b"text,predicted\r\n", replace(left.state, rows=1))
        left.commit()
    predict_stream(Fake(), io.BytesIO(LINES), output)
    assert output.read_bytes() == other.read_bytes()
    with Partial.open(output, {"input": "of a file"}) as left:
        left.add(b"rows", left.state)
    with pytest.raises(RunError, match="input was of a file and is standard inp"):
        predict_stream(Fake(), io.BytesIO(LINES), output)
    assert left.rows.read_bytes() == b"rows"
    predict_stream(Fake(), io.BytesIO(LINES), output, fresh=True)
    assert output.read_bytes() == other.read_bytes()


def test_a_file_is_not_written_over_the_stream_it_is_made_of(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_bytes(LINES)
    with path.open("rb") as stream, pytest.raises(SettingsError, match=r"lines\.csv' is the input"):
        predict_stream(Fake(), stream, path)
    assert path.read_bytes() == LINES


@pytest.mark.parametrize(
    ("lines", "remarked"),
    [
        (b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\n', True), (b"{}", True), (b'one\n{"text": "two"}\n', False),
        (b'{"text": "one"\n', False), (b'["one"]\n', False), (b'"one"\n', False), (b"[" * 100_000, False),
    ],
)  # fmt: skip
def test_json_lines_on_standard_input_are_texts_and_that_is_told_once(lines: bytes, remarked: bool) -> None:
    told, classifier = [], Fake()
    counted = predict_lines(classifier, io.BytesIO(lines), io.StringIO(), note=told.append)
    assert counted.predicted == len(lines.splitlines()) == len(classifier.answered)
    assert [".jsonl" in one for one in told] == [True] * remarked


def test_json_lines_are_lines_to_every_reader(tmp_path: Path) -> None:
    rows = [{"text": "one\x85two\u2028three\u2029four"}] * 2
    output, printed = tmp_path / "out.jsonl", io.StringIO()
    source = given_file(tmp_path, "in.jsonl", rows)
    run(source, output)
    print_source(Fake(), str(source), printed, DataSettings(), Answers(Fake.labels, top_k=1))
    for text in (output.read_text(encoding="utf-8"), printed.getvalue()):
        assert [json.loads(line)["text"] for line in text.splitlines()] == [row["text"] for row in rows]


def test_json_out_is_json_to_strict_readers(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "one", "x": NaN, "y": [1e999]}\n{"text": 1e999, "x": 1.5, "y": null}\n')
    assert run(source, output) == Counted(2, 1, 0, 1)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in output.read_text().splitlines()]
    assert [(row["text"], row["x"], row["y"]) for row in rows] == [("one", None, [None]), (None, 1.5, None)]
    assert rows[1]["error"] == "empty text"
    run(source, tmp_path / "out.csv")
    assert [row["y"] for row in found(tmp_path / "out.csv")] == ["[null]", None]


def test_counts_tell_what_was_left_undecided(tmp_path: Path) -> None:
    # a column of the input that is named like one of ours is no answer
    rows = [row | {"abstained": "true"} for row in ROWS]
    source = given_file(tmp_path, "in.csv", rows)
    assert run(source, tmp_path / "plain.jsonl") == Counted(20, 19, 0, 1)
    counted = run(source, tmp_path / "out.jsonl", answers=Answers(Fake.labels, abstain=0.9))
    lines = found(tmp_path / "out.jsonl")
    assert counted.abstained == sum(line["abstained"] is True for line in lines) > 0
    assert counted.rows == counted.predicted + counted.abstained + counted.failed == 20


def letters(text: str, label: str, many: int) -> list[tuple[str, float]]:
    """A stand-in for an explanation: the text's words, the label's initial first."""
    return [(word, float(-place)) for place, word in enumerate([label[0], *text.split()])][:many]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_words_that_decided_are_told_of_each_row(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "EXPLAINED_CHUNK", 2)
    output = tmp_path / f"out{suffix}"
    classifier = Fake()
    answers = Answers(Fake.labels, abstain=0.9, words=Words(2, letters))
    with pytest.raises(InterruptedRun):  # stopped after a chunk, whose size is that of explained rows
        run(given_file(tmp_path, "in.csv"), output, classifier=classifier, answers=answers, stop=lambda: 2)
    assert len(classifier.answered) == 2
    counted = run(tmp_path / "in.csv", output, answers=answers)
    assert counted.abstained > 0
    rows = found(output)
    for row, given_row in zip(rows, ROWS, strict=True):
        told = json.loads(row["words"]) if ".csv" in suffix and row["words"] else row["words"]
        if row["error"]:
            assert told is None
            continue
        initial, word = told
        assert word == {"word": given_row["text"].split()[0], "score": -1.0}
        assert initial["word"] in "WS"  # of the likeliest label where the row was left undecided
        assert row["predicted"] is None or initial["word"] == row["predicted"][0]


def test_how_many_words_belongs_to_the_plan(tmp_path: Path) -> None:
    source, output = given_file(tmp_path, "in.csv"), tmp_path / "out.csv"
    with pytest.raises(InterruptedRun):
        run(source, output, answers=Answers(Fake.labels, words=Words(2, letters)), stop=lambda: 2)
    with pytest.raises(RunError):
        run(source, output, answers=Answers(Fake.labels, words=Words(3, letters)))


def test_bad_rows_come_out_with_their_error_and_counts_reconcile(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(
        b"id,text\n1,fine\n2,nul\x00here\n3,K\xfcche\n4\n5,a,b\n6," + b"x" * 10_000_001 + b'\n7,\n8,"open\n9,last\n'
    )
    for suffix in OUTPUTS:
        counted = run(source, tmp_path / f"out{suffix}")
        rows = found(tmp_path / f"out{suffix}")
        assert counted == Counted(9, 2, 0, 7)
        wanted = [
            None,
            "a NUL",
            "broken encoding",
            "ragged",
            "ragged",
            "not readable",
            "empty text",
            "not readable",
            None,
        ]
        for row, problem in zip(rows, wanted, strict=True):
            assert row["error"] is None if problem is None else row["error"].startswith(problem)
        assert rows[2]["text"] == "K\\udcfcche" if ".jsonl" not in suffix else "K\udcfcche"


def test_a_text_longer_than_any_article_is_an_error_in_every_format(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(as_lines([{"text": "short"}, {"text": "y" * 10_000_001}]))
    assert run(source, tmp_path / "out.jsonl") == Counted(2, 1, 0, 1)
    assert "10,000,001 characters" in found(tmp_path / "out.jsonl")[1]["error"]


NASTY = {
    ".csv": [
        b"1,fine\n", b"\n", b"2,\n", b"3\n", b'4,"a\nb"\n', b'5,"open\n', b"6,\x00\n", b"7,\xff\n", b"8,a,b\r\n",
        b"\xed\xa0\x80,x\n", '9,"é""🙂"\n'.encode(), b"10,a\rb\n", b"\xef\xbb\xbf,bom\n",
    ],
    ".jsonl": [
        b'{"text": "fine"}\n', b"\n", b'{"text": ""}\r\n', b"{}\n", b"[1]\n", b"no json\n", b'{"text": "\xff"}\n',
        b'{"text": 3}\r',
        b'{"text": "\\ud800"}\n', '{"text": "é🙂"}\n'.encode(), b'{"text": "\x00"}\n', b'\xef\xbb\xbf{"text": "bom"}\n',
    ],
}  # fmt: skip
FIRST = {".csv": b"id,text\n0,first\n", ".jsonl": b'{"id": "0", "text": "first"}\n'}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), suffix=st.sampled_from(list(NASTY)), bom=st.booleans(), packed=st.booleans())
def test_any_file_counts_every_row_and_goes_on_anywhere(
    data: st.DataObject, suffix: str, bom: bool, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("nasty")
    lines = data.draw(st.lists(st.sampled_from(NASTY[suffix]), max_size=25))
    content = b"\xef\xbb\xbf" * bom + FIRST[suffix] + b"".join(lines)
    source = folder / f"in{suffix}{'.gz' if packed else ''}"
    source.write_bytes(gzip.compress(content) if packed else content)
    table = open_table(parse_source(str(source)), None)
    rows = list(table.rows)
    assert rows[0] == RawRow(1, {"id": "0", "text": "first"})
    for row in rows:
        assert list(table.rows_behind(row.number, row.end)) == rows[row.number :]
    counted = run(source, folder / "out.jsonl")
    assert counted.rows == len(rows) == counted.predicted + counted.failed == len(found(folder / "out.jsonl"))
    calls, cut = iter(range(100)), data.draw(st.integers(0, 9))
    try:
        run(source, folder / "cut.jsonl", stop=lambda: 2 if next(calls) == cut else None)
    except InterruptedRun:
        assert run(source, folder / "cut.jsonl") == counted
    assert (folder / "cut.jsonl").read_bytes() == (folder / "out.jsonl").read_bytes()
    shutil.rmtree(folder)


def test_a_chunk_ends_at_a_number_of_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 100)
    rows = [RawRow(number, {"text": "x" * length}) for number, length in enumerate([60, 60, 1, 1, 1, 1, 500, 1], 1)]
    assert [[row.number for row in some] for some in chunks._cut(rows, chunks.CHUNK)] == [
        [1, 2],
        [3, 4, 5],
        [6, 7],
        [8],
    ]


def test_ahead_keeps_order_stays_in_bounds_and_passes_errors_on() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number
        raise DataError("ours")

    taken = []

    def take() -> None:
        for item in chunks.ahead(items(), depth=3):
            taken.append(item)
            assert len(made) <= len(taken) + 3

    with pytest.raises(DataError, match="ours"):
        take()
    assert taken == list(range(10))
    before = threading.active_count()
    made.clear()
    for item in chunks.ahead(items(), depth=3):
        if item == 2:
            break
    assert threading.active_count() == before
    assert len(made) <= 6
    names = set(chunks.ahead(threading.current_thread().name for _ in range(2)))
    assert threading.current_thread().name not in names


def test_a_line_is_answered_before_the_next_one_comes() -> None:
    reading, writing = os.pipe()
    came = threading.Event()

    class Output(io.StringIO):
        def flush(self) -> None:
            came.set()

    output, counted = Output(), []
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        thread = threading.Thread(target=lambda: counted.append(predict_lines(Fake(), stream, output)))
        thread.start()
        for number in range(5):
            came.clear()
            pipe.write(b"text %d\r\nbroken \xff\n" % number)
            assert came.wait(20)
            assert output.getvalue().count("\n") == 2 * number + 2
        pipe.write(b"no newline at the end")
        pipe.close()
        thread.join(20)
    assert counted == [Counted(11, 6, 0, 5)]
    last = output.getvalue().splitlines()[-1]
    assert last.endswith("\tno newline at the end")


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CELL_LIMIT", 100)
    monkeypatch.setattr(bulk, "BLOCK", 64)
    stream = io.BytesIO(b"\xef\xbb\xbfone\n" + b"x" * 5_000 + b"\ntwo\n" + b"y" * 101)
    kept = [len(line) for lines in bulk._whole_lines(io.BytesIO(stream.getvalue())) for line in lines]
    assert max(kept) <= 100 + 64
    output = io.StringIO()
    assert predict_lines(Fake(), stream, output) == Counted(4, 2, 0, 2)
    lines = output.getvalue().splitlines()
    assert lines[0].endswith("\tone")
    assert lines[1].endswith("(a line of over 100 bytes: not an article)")
    assert lines[2].endswith("\ttwo")


def test_a_file_on_screen_is_the_same_rows(tmp_path: Path) -> None:
    output = io.StringIO()
    assert print_source(Fake(), str(given_file(tmp_path, "in.csv")), output, DataSettings()) == Counted(20, 19, 0, 1)
    lines = output.getvalue().splitlines()
    assert [line.split("\t")[2] for line in lines] == [row["text"].strip() for row in ROWS]
    assert lines[4] == "-\t-\t\t(empty text)"

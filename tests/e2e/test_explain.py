"""`newslora explain` as a person types it."""

import io
import json
from pathlib import Path

import pytest

import newslora
from newslora.cli.app import main
from newslora.errors import DataError
from newslora.explanation.attributions import explain
from newslora.predict.classifier import Classifier


def test_texts_are_explained_on_screen(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(planted), "peace treaty signs", "-- treaty games"]) == 0
    out = capsys.readouterr().out
    assert out.count("World  0.9") == 2
    assert "peace treaty signs" in out
    assert "│ treaty │ +" in out
    assert "add up to the difference within" in out


def test_lines_go_to_a_file_and_what_was_cut_is_told(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["peace treaty signs", "", "games " * 200 + "treaty"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    output = tmp_path / "out.jsonl"
    assert main(["explain", str(planted), "-", "-o", str(output), "--label", "Sports"]) == 0
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["text"] for record in records] == [lines[0], lines[2]]
    assert {record["label"] for record in records} == {"Sports"}
    assert "the rest was cut" in records[1]["remarks"][0]
    assert str(output) in capsys.readouterr().err.replace("\n", "")


def test_predict_tells_the_words_that_explain_does(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("text\npeace treaty signs\n \nthe games\n")
    assert main(["predict", str(planted), str(source), "-o", str(output), "--explain", "2"]) == 0
    treaty, empty, games = (json.loads(line) for line in output.read_text(encoding="utf-8").splitlines())
    assert (empty["words"], empty["error"]) == (None, "empty text")
    for row in (treaty, games):
        one = explain(Classifier.load(planted, engine="padded"), row["text"], row["predicted"])
        assert [word["word"] for word in row["words"]] == [word.text for word in one.top(2)]
        assert [word["score"] for word in row["words"]] == pytest.approx([word.score for word in one.top(2)], abs=1e-5)
    assert treaty["words"][0]["word"] == "treaty"
    capsys.readouterr()
    assert main(["predict", str(planted), str(source), "--explain", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["words"] for line in lines] == [treaty["words"][:1], None, games["words"][:1]]
    assert main(["predict", str(planted), str(source), "--explain", "0"]) == 2
    assert "explain is 0. Allowed: 1 or more" in " ".join(capsys.readouterr().err.split())


def test_explanations_are_checked_and_the_verdict_said(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(planted.parent / "test.jsonl")
    assert main(["explain", str(planted), "--check", source, "--rows", "30"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    result = json.loads((planted / "evaluation" / "faithfulness.json").read_text(encoding="utf-8"))
    assert (
        f"30 rows: deleting the words named moves the probability by {100 * result['difference']['value']:.2f}" in out
    )
    assert result["verdict"] in out


MISTAKES: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "Give texts to explain"),
    "both": (["text", "--check", "x.csv"], "Give texts to explain"),
    "suffix": (["text", "-o", "out.txt"], "'.txt'. Allowed: .jsonl, .html"),
    "label": (["text", "--label", "Wrold"], "Did you mean 'World'"),
    "check with output": (["--check", "x.csv", "-o", "x.html"], "takes no --output"),
    "rows": (["--check", "x.csv", "--rows", "1"], "(--rows) is 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence(mistake: str, planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, sentence = MISTAKES[mistake]
    assert main(["explain", str(planted), *arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("empty", ["", " \t\n", "\u200b\ufeff"])
def test_an_empty_text_is_refused_as_predict_refuses_it(
    empty: str, planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(planted), "treaty", empty]) == 3
    captured = capsys.readouterr()
    assert "Text 2 of 2 cannot be explained: empty text." in captured.err
    assert captured.out == ""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": empty}) + "\n")
    assert main(["predict", str(planted), str(tmp_path / "rows.jsonl")]) == 0
    assert "empty text" in capsys.readouterr().out
    classify = newslora.Classifier.load(planted)
    for ask in (classify, lambda texts: newslora.explain(classify, texts)):
        with pytest.raises(DataError, match="Text 0 of 1, counted from 0, is an empty text"):
            ask(empty)
        with pytest.raises(DataError, match="Text 1 of 2, counted from 0, is an empty text"):
            ask(["treaty", empty])
    assert classify.predict_proba([empty]).shape == (1, len(classify.labels))


def test_lines_are_those_that_predict_reads(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = "\ufefftreaty caf\u00e9\r\nthe\rgames\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode()), encoding="latin-1"))
    output = tmp_path / "out.jsonl"
    assert main(["explain", str(planted), "-", "-o", str(output)]) == 0
    explained = [json.loads(line)["text"] for line in output.read_text(encoding="utf-8").splitlines()]
    assert explained == ["treaty caf\u00e9", "the\rgames"]
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode()), encoding="latin-1"))
    assert main(["predict", str(planted), "-"]) == 0
    predicted = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert predicted == [" ".join(text.split()) for text in explained]


def test_a_line_that_is_no_utf8_is_named(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"treaty\n\xff\n"), encoding="utf-8"))
    assert main(["explain", str(planted), "-"]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "Line 2" in told
    assert "put `iconv -f WINDOWS-1252 -t UTF-8 |` before the command" in told

"""Commands that cannot begin say so before anything else, and leave nothing behind."""

from pathlib import Path

import pytest

from newslora.cli.app import main


def test_a_server_looks_at_its_folders_before_it_listens(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.toml").write_text("")
    for words, code, said in (
        ([str(planted), str(tmp_path / "none")], 5, f"There is no run folder '{tmp_path / 'none'}'."),
        ([str(empty)], 5, "is not a run folder"),
        ([str(unfinished)], 5, "has no adapter yet"),
        ([str(planted), "--watch", str(tmp_path / "none")], 2, "to watch. Make it, or name another."),
        ([str(planted), "--set", f"watch={tmp_path / 'none'}"], 2, "to watch. Make it, or name another."),
    ):
        assert main(["serve", *words, "--port", "0"]) == code
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.out == ""  # nobody was told to come


@pytest.mark.parametrize("output", [None, "some/where/run"])
def test_a_refused_training_leaves_no_folder_where_there_was_none(
    output: str | None, tiny_bert: Path, news_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    nothing = tmp_path / "nothing.csv"
    nothing.touch()
    given = [] if output is None else ["-o", output]
    assert main(["train", "--data", str(news_file), "--backbone", str(tmp_path / "bertt"), *given]) == 4
    assert list(place.iterdir()) == []
    assert main(["train", "--data", str(nothing), "--backbone", str(tiny_bert), *given]) == 3
    assert list(place.iterdir()) == []
    (place / "runs").mkdir()
    assert main(["train", "--data", str(nothing), "--backbone", str(tiny_bert), *given]) == 3
    assert [path.name for path in place.rglob("*")] == ["runs"]  # made by another, and so left


def test_rows_that_were_set_aside_stay_for_who_reads_the_error(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\n,World\n,Sports\na treaty,World\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", str(bad), "--backbone", str(tiny_bert), "-o", "some/where"]) == 3
    assert [path.name for path in (tmp_path / "some" / "where").iterdir()] == ["quarantine.jsonl"]

"""compare and audit on trained runs and planted files, as a person types them."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import newslora
from newslora.cli.app import main
from newslora.config import load_recipe
from newslora.errors import BackboneError, DataError, MissingExtraError, RunError, SettingsError

TOPICS = {"World": "minister president treaty army peace accord", "Sports": "striker club cup final sprinter record"}
FLIPPED = range(70, 90, 2)
FILLER = [f"filler{number}" for number in range(2_000)]


def news(count: int, seed: int) -> list[tuple[str, str]]:
    """Rows of two topics by turns: five words of the topic, fifteen of none."""
    generator = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        label = list(TOPICS)[place % 2]
        words = [*generator.choice(TOPICS[label].split(), size=5), *generator.choice(FILLER, size=15)]
        rows.append((" ".join(generator.permutation(words).tolist()), label))
    return rows


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Clean and planted files, and runs: two seeds of one recipe and one that learns nothing."""
    folder = tmp_path_factory.mktemp("compare-audit")
    train, test = news(200, 0), news(100, 1)
    write(folder / "train.csv", train)
    write(folder / "test.csv", test)
    planted = list(test)
    planted[0] = train[0]
    planted[1] = (train[1][0].replace(train[1][0].split()[3], "changed", 1), train[1][1])
    planted[2] = (train[2][0].upper(), "Sports" if train[2][1] == "World" else "World")
    for place in FLIPPED:
        planted[place] = (test[place][0], "Sports")  # of World
    planted[60] = (test[60][0] + " caf\u00c3\u00a9 &amp; more", test[60][1])
    write(folder / "planted.csv", planted)
    os.environ["NEWSLORA_CACHE"] = str(folder / "cache")
    small = {
        "train.epochs": 3, "train.batch_size": 8, "train.learning_rate": 1e-2, "train.warmup_steps": 2,
        "train.precision": "fp32", "data.validation_rows": 20, "data.workers": 0, "model.backbone": str(tiny_bert),
        "data.source": str(folder / "train.csv"), "data.test": str(folder / "test.csv"),
    }  # fmt: skip
    idle = {"train.learning_rate": 1e-12, "train.epochs": 1}
    for name, changes in {"one": {"train.seed": 1}, "two": {"train.seed": 2}, "idle": idle}.items():
        newslora.train(load_recipe("seed", small | changes), output=folder / name, report=False)
    return folder


def test_compare_tells_a_trained_run_from_an_idle_one_and_knows_seeds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(folder / name) for name in ("one", "two", "idle")]
    assert main(["compare", *runs, "-o", str(folder / "compared.json")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "one is more accurate than idle" in shown
    assert "corrected for 3 pairs" in shown
    result = json.loads((folder / "compared.json").read_text())
    assert result["evaluation"] == "test"
    assert [group["seeds"] for group in result["seeds"]] == [[1, 2]]
    assert [pair["seeds_of_one_recipe"] for pair in result["pairs"]] == [True, False, False]
    accuracy = [run["accuracy"]["value"] for run in result["runs"]]
    differences = [pair["differences"]["accuracy"]["value"] for pair in result["pairs"]]
    assert differences == pytest.approx(
        [accuracy[0] - accuracy[1], accuracy[0] - accuracy[2], accuracy[1] - accuracy[2]]
    )
    labels = [[line["predicted"] for line in read(Path(run) / "evaluation" / "test.csv")] for run in runs]
    differ = sum(len(set(row)) > 1 for row in zip(*labels, strict=True))
    assert len(read(folder / "compared-rows.csv")) == differ == result["differing_rows"] > 0


def test_compare_scores_other_rows_once_and_then_takes_what_is_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from newslora.evaluation import stored

    runs, calls = [folder / "one", folder / "idle"], []
    real = stored.evaluate
    monkeypatch.setattr(stored, "evaluate", lambda *given, **more: calls.append(given) or real(*given, **more))
    first = newslora.compare(runs, data=str(folder / "planted.csv"))
    assert (first["rows"], len(calls)) == (100, 2)
    assert newslora.compare(runs, data=str(folder / "planted.csv")) == first
    assert len(calls) == 2
    with pytest.raises(DataError, match=r"There is no data file"):
        newslora.compare(runs, data=str(folder / "absent.csv"))


def test_compare_takes_no_stored_result_of_other_columns(folder: Path, tmp_path: Path) -> None:
    """What was scored with other settings is an evaluation of the same bytes too."""
    path, rows = tmp_path / "held.csv", news(20, 3)
    other = {"World": "Sports", "Sports": "World"}
    lines = [(text, "filler1 filler2", label, other[label]) for text, label in rows]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "body", "label", "mirrored"), *lines])
    runs = [folder / "one", folder / "two"]
    plain = newslora.compare(runs, data=path)
    for changes in ({"data.text_columns": "body"}, {"data.label_column": "mirrored"}):
        assert newslora.compare(runs, data=path, changes=changes)["runs"] != plain["runs"]
        assert newslora.compare(runs, data=path) == plain


def test_audit_of_clean_files_finds_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(folder / "train.csv"), str(folder / "test.csv")]
    assert main(["audit", *sources, "--strict"]) == 0
    assert "No row of test repeats a row of train" in " ".join(capsys.readouterr().out.split())
    result = newslora.audit(sources)
    assert [one["rows"] for one in result["splits"]] == [200, 100]
    assert result["splits"][0]["labels"] == {"Sports": 100, "World": 100}
    assert result["splits"][0]["words"] == {
        "shortest": 20, "mean": 20, "median": 20, "percentile_95": 20, "percentile_99": 20, "longest": 20,
    }  # fmt: skip
    assert all(not one["equal_pairs"] + one["near_pairs"] for one in result["duplicates"]["between"])
    assert all(one["rows"] == 0 for one in result["damage"])
    assert [one["likely_wrong"] for one in result["labels"]] == [0, 0]


def test_audit_says_why_rows_were_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{label},{label} news {number}" for number in range(10) for label in ("World", "Sports")]
    text = "\n".join(["label,text", *lines, "World,caf\u00e9", "Sports,"])
    (tmp_path / "latin.csv").write_text(text, encoding="latin-1")
    assert main(["audit", str(tmp_path / "latin.csv")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Rows of latin set aside: broken encoding: not valid UTF-8; save the file as UTF-8" in told
    assert "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW (1 rows); empty text (1 rows)." in told


def test_audit_finds_what_was_planted_and_lists_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "audit"
    sources = [str(folder / "train.csv"), str(folder / "planted.csv")]
    assert main(["audit", *sources, "--strict", "-o", str(output)]) == 1
    told = capsys.readouterr()
    assert "Leakage: 3 of 100 rows of planted" in " ".join(told.out.split())
    assert "newslora: Leakage found: 3 of 100 rows of planted repeat rows of train." in told.err
    assert [(line["row"], line["kind"], line["repeats_row"]) for line in read(output / "leakage.csv")] == [
        ("1", "equal", "1"), ("2", "near", "2"), ("3", "equal", "3"),
    ]  # fmt: skip
    pairs = read(output / "duplicates.csv")
    assert [(line["split_a"], line["row_a"], line["row_b"], line["labels"]) for line in pairs] == [
        ("train", "1", "1", "agree"), ("train", "3", "3", "differ"), ("train", "2", "2", "agree"),
    ]  # fmt: skip
    assert [(line["row"], line["kind"], line["found"]) for line in read(output / "text-damage.csv")] == [
        ("61", "mojibake", "\u00c3\u00a9"), ("61", "entity", "&amp;"),
    ]  # fmt: skip
    doubtful = [line for line in read(output / "labels.csv") if line["split"] == "planted"]
    flipped = [line for line in doubtful if int(line["row"]) - 1 in FLIPPED]
    assert len(flipped) > len(FLIPPED) / 2  # of labels that this judge, right on nine rows of ten, can call wrong
    assert len(doubtful) - len(flipped) <= 1  # row 3 bears another label than its equal, too
    assert {(line["given"], line["suggested"]) for line in flipped} == {("Sports", "World")}
    text = (output / "audit.json").read_text()
    assert json.loads(text)["leakage"][0]["with_another_label"] == 1
    assert "filler" not in text  # the summary holds no text, so it can be shown around


def test_audit_with_a_run_counts_tokens_and_weighs_leaks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(folder / "train.csv"), str(folder / "planted.csv")]
    result = newslora.audit(sources, run=folder / "one", judge="backbone")
    assert result["splits"][0]["tokens"] == {
        "shortest": 22, "mean": 22, "median": 22, "percentile_95": 22, "percentile_99": 22, "longest": 22,
        "limit": 64, "cut_rows": 0, "cut_tokens_share": 0,
    }  # fmt: skip
    (effect,) = result["leakage_effect"]
    rows = read(folder / "planted.csv")
    said = newslora.Classifier.load(folder / "one")([row["text"] for row in rows])
    right = [one.label == row["label"] for one, row in zip(said, rows, strict=True)]
    assert effect["all"]["value"] == pytest.approx(np.mean(right))
    assert effect["clean"]["value"] == pytest.approx(np.mean(right[3:]))
    assert (effect["leaked"]["rows"], effect["clean"]["rows"]) == (3, 97)
    assert [one["judged_by"].split(",")[0] for one in result["labels"]] == [
        "the pretrained backbone's mean embeddings", "the run's own predictions",
    ]  # fmt: skip
    assert result["run"]["trained_on"] == ["train"]
    assert main(["audit", *reversed(sources), "--run", str(folder / "one")]) == 0
    assert "Accuracy on" not in capsys.readouterr().out  # the training rows come second: nothing scored leaks into them


def test_audit_with_a_run_of_a_damaged_tokenizer_says_so(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "one", tmp_path / "run")
    (run / "adapter" / "tokenizer.json").write_text("{")
    with pytest.raises(RunError, match=r"tokenizer in .* cannot be read"):
        newslora.audit([str(folder / "planted.csv")], run=run)


def test_audit_judges_by_no_other_backbone_than_the_runs(folder: Path, tmp_path: Path) -> None:
    card = shutil.copytree(folder / "one", tmp_path / "run") / "adapter" / "newslora.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"backbone_sha256": "0" * 64}))
    for judge in ("backbone", "training"):
        with pytest.raises(BackboneError, match="answers rightly only on its own backbone"):
            newslora.audit([str(folder / "train.csv")], run=tmp_path / "run", judge=judge)  # type: ignore[arg-type]


def test_audit_by_training_anew_leaves_each_row_out(folder: Path) -> None:
    result = newslora.audit([str(folder / "train.csv")], run=folder / "one", judge="training")
    (one,) = result["labels"]
    assert one["judged_by"] == "the run's recipe trained anew for each of 5 folds"
    assert one["its_accuracy"] > 0.6  # chance is 0.5 and 200 rows: below one in a hundred


def test_audit_counts_what_a_backbone_would_cut(folder: Path, tiny_bert: Path) -> None:
    long = write(folder / "long.csv", [*news(20, 3), ("minister " * 100, "World")])
    (split,) = newslora.audit([str(long)], backbone=str(tiny_bert))["splits"]
    assert (split["tokens"]["limit"], split["tokens"]["cut_rows"], split["tokens"]["longest"]) == (64, 1, 102)
    assert split["tokens"]["cut_tokens_share"] == pytest.approx(38 / (20 * 22 + 102))


def test_audit_of_a_folder_takes_all_its_splits() -> None:
    result = newslora.audit(["corpus"])
    assert [one["name"] for one in result["splits"]] == ["train", "validation", "test"]
    assert len(result["leakage"]) == 3


def test_audit_reports_rows_set_aside_instead_of_stopping(folder: Path) -> None:
    path = write(folder / "gaps.csv", [*news(20, 4), ("", "World"), (" ", "Sports")])
    (split,) = newslora.audit([str(path)], output=folder / "gaps")["splits"]
    assert (split["rows"], split["quarantined"], split["quarantine_reasons"]) == (20, 2, {"empty text": 2})
    assert len((folder / "gaps" / "quarantine.jsonl").read_text().splitlines()) == 2


def test_audit_of_labels_too_rare_to_judge_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder / "rare.csv", [*news(20, 5), ("one row of its own", "Weather")])
    assert main(["audit", str(path)]) == 0
    assert "Labels not judged" in capsys.readouterr().out


def test_audit_says_what_it_cannot_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = str(folder / "train.csv")
    assert main(["audit"]) == 2
    assert "at least one source" in capsys.readouterr().err
    assert main(["audit", train, str(folder / ".." / folder.name / "train.csv")]) == 2
    assert "the same bytes as 'train'" in capsys.readouterr().err
    for flags, told in (
        (["--judge", "training"], "needs a run (--run)"),
        (["--judge", "backbone"], "or a backbone (--backbone)"),
        (["--similarity", "0"], "Allowed: 0.1 to 1"),
        (["--run", str(folder / "one"), "--backbone", "minilm"], "leave the other (--backbone) out"),
    ):
        assert main(["audit", train, *flags]) == 2
        assert told in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"no judge 'word'.*Did you mean 'words'"):
        newslora.audit([train], judge="word")  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["datasketch", "cleanlab"])
def test_audit_without_its_extra_says_what_to_install(
    folder: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'newslora\[audit\]'"):
        newslora.audit([str(folder / "train.csv")])


def test_tables_fit_eighty_columns(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["audit", str(folder / "train.csv"), str(folder / "planted.csv"), "--run", str(folder / "one")]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "over 64" in shown
    assert "likely wrong label" in shown

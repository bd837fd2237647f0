"""Commands as a person types them: what they leave, what they print, and how they say no."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from newslora.cli.app import main
from newslora.runfolder import RunFolder

LABELS = {"World", "Sports"}


def settings(**values: Any) -> list[str]:
    small = {
        "train.epochs": 3, "train.batch_size": 4, "train.learning_rate": 1e-2, "train.warmup_steps": 2,
        "data.validation_rows": 8, "data.workers": 0, "train.precision": "fp32",
    }  # fmt: skip
    merged = small | {key.replace("__", "."): value for key, value in values.items()}
    return [part for key, value in merged.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A finished run on forty articles, with a test file."""
    folder = tmp_path_factory.mktemp("cli")
    texts = {
        "World": ["minister meets president over border treaty", "army and rebels sign peace accord in capital"],
        "Sports": ["striker scores twice as club wins cup final", "sprinter breaks record at games in stadium"],
    }
    rows = [(text, label) for _ in range(10) for label, many in texts.items() for text in many]
    for name, part in {"train": rows, "test": rows[:12]}.items():
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *part])
    os.environ["NEWSLORA_CACHE"] = str(folder / "cache")
    data = ["--data", str(folder / "train.csv"), "--test", str(folder / "test.csv")]
    code = main(["train", "seed", "--backbone", str(tiny_bert), *data, "-o", str(folder / "run"), *settings()])
    assert code == 0
    return folder / "run"


def test_a_run_folder_is_whole(run: Path) -> None:
    there = {path.name for path in run.iterdir()}
    wanted = "recipe.toml data.json quarantine.jsonl metrics.jsonl checkpoints adapter evaluation figures report.html"
    assert set(wanted.split()) <= there
    manifest = RunFolder.open(run).manifest()
    assert manifest["training"]["steps"] == 24
    assert manifest["environment"]["packages"]["torch"] == torch.__version__
    assert {path.stem for path in (run / "evaluation").glob("*.json")} == {"validation", "test", "explanations"}
    assert list((run / "tensorboard").iterdir())


def test_evaluations_count_every_row_once_and_name_the_selection_bias(run: Path) -> None:
    for name, rows, chose in (("validation", 8, True), ("test", 12, False)):
        result = json.loads((run / "evaluation" / f"{name}.json").read_text())
        assert result["rows"] == rows == sum(map(sum, result["confusion"]))
        assert result["chose_the_epoch"] is chose
        assert bool(result["note"]) is chose
        with (run / "evaluation" / f"{name}.csv").open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        hits = sum(line["label"] == line["predicted"] for line in lines)
        assert hits / rows == result["accuracy"]["value"]
        low, high = result["accuracy"]["interval"]
        assert low <= result["accuracy"]["value"] <= high


def test_the_adapter_is_stock_peft(run: Path, tiny_bert: Path) -> None:
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    import newslora

    adapter = run / "adapter"
    text = "striker wins cup final"
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, config=AutoConfig.from_pretrained(adapter))
    stock = PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        logits = stock(**AutoTokenizer.from_pretrained(adapter)(text, return_tensors="pt")).logits
    classifier = newslora.Classifier.load(run)
    ours = classifier(text)
    wanted = (logits.double() / classifier.temperature).softmax(-1)[0].tolist()
    assert list(ours.probabilities.values()) == pytest.approx(wanted, abs=1e-6)
    assert ours.label == stock.config.id2label[int(logits.argmax())]


def test_evaluate_shows_stored_results_and_scores_other_rows(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["evaluate", str(run)]) == 0
    assert "test: 12 rows" in capsys.readouterr().out
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "club wins cup", "label": "Sports"}\n{"text": "army in capital", "label": "World"}\n')
    assert main(["evaluate", str(run), "--data", str(other)]) == 0
    assert "other: 2 rows" in capsys.readouterr().out
    assert json.loads((run / "evaluation" / "other.json").read_text())["chose_the_epoch"] is False


def test_evaluate_reads_numbered_labels_when_told_their_names(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = {1: "army and rebels sign peace accord in capital", 2: "striker scores twice as club wins cup final"}
    plain = tmp_path / "numbers.csv"
    plain.write_text("".join(f'"{number}","{text}",""\n' for number, text in texts.items()))
    assert main(["evaluate", str(run), "--data", str(plain)]) == 3
    assert "unknown label '1'" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data", str(plain), "--set", 'data.label_names=["World","Sports"]']) == 0
    with (run / "evaluation" / "numbers.csv").open(newline="") as stream:
        assert [line["label"] for line in csv.DictReader(stream)] == ["World", "Sports"]
    reverse = 'data.label_names=["Sports","World"]'
    assert main(["evaluate", str(run), "--data", str(plain), "--set", reverse]) == 0
    found = sorted((run / "evaluation").glob("numbers-????????.csv"))
    with found[0].open(newline="") as stream:
        assert [line["label"] for line in csv.DictReader(stream)] == ["Sports", "World"]
    result = json.loads(found[0].with_suffix(".json").read_text())
    assert result["settings"] == {"label_names": ["Sports", "World"]}
    assert "read by other settings than the run's own: data.label_names is Sports, World." in result["note"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predict_returns_every_row_in_order_and_bad_rows_with_a_reason(run: Path, suffix: str, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / f"out{suffix}"
    rows = [
        {"id": 1, "text": "club wins cup final"},
        {"id": 2, "text": "  "},
        {"id": 3, "text": "minister signs treaty"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    assert main(["predict", str(run), str(source), "-o", str(output)]) == 0
    if suffix == ".parquet":
        found = pq.read_table(output).to_pylist()
    elif suffix == ".jsonl":
        found = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        with output.open(newline="") as stream:
            found = list(csv.DictReader(stream))
    assert [str(row.get("id") or "") for row in found] == ["1", "2", "3", ""]
    assert {found[0]["predicted"], found[2]["predicted"]} <= LABELS
    assert 0.5 <= float(found[0]["probability"]) <= 1
    assert not found[1]["predicted"]
    assert found[1]["error"] == "empty text"
    assert found[3]["error"].startswith("not JSON")


def test_predict_reads_standard_input(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"club wins cup final\n\nbroken \xff bytes\n")))
    assert main(["predict", str(run), "-"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    label, probability, text = first.split("\t")
    assert label in LABELS
    assert 0.5 <= float(probability) <= 1
    assert text == "club wins cup final"
    assert "(empty text)" in second
    assert "(broken encoding" in third
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"club wins cup final\n\n")))
    assert main(["predict", str(run), "-", "-o", str(tmp_path / "out.csv")]) == 0
    assert "2 rows in" in capsys.readouterr().err
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = [(row["text"], row["predicted"], row["error"]) for row in csv.DictReader(file)]
    assert found == [("club wins cup final", label, ""), ("", "", "empty text")]


@pytest.mark.usefixtures("no_figures")
def test_report_is_written_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size > 10_000


def test_a_finished_run_resumes_to_itself_and_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "manifest.json").read_bytes()
    assert main(["train", "--resume", str(run)]) == 0
    assert "was finished already" in " ".join(capsys.readouterr().err.split())
    assert (run / "manifest.json").read_bytes() == before


def test_dry_run_counts_the_reference_without_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # timing RoBERTa-base takes half a minute here; the next test times a small one for real
    monkeypatch.setattr("newslora.plan._time_step", lambda *arguments: 0.25)
    assert main(["train", "seed", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "rank = 4" in captured.out
    for part in (
        "741,124",
        "147,456 LoRA",
        "593,668 head",
        "119,360 train",
        "37,300",
        "31,332,000",
        "2.6 h",
    ):
        assert part in captured.err


def test_dry_run_of_local_rows_times_a_step_and_writes_nothing(
    tiny_bert: Path,
    news_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["train", "--dry-run", "--backbone", str(tiny_bert), "--data", str(news_file), *settings()]) == 0
    captured = capsys.readouterr()
    assert "24 (3 epochs, batch 4)" in captured.err  # 32 rows
    assert re.search(r"3 steps of 1\d tokens a row on the packed engine", captured.err)
    assert sorted(path for path in tmp_path.iterdir() if path.name != "cache") == before
    Path("printed.toml").write_text(captured.out, encoding="utf-8")
    assert main(["train", "printed.toml", "--dry-run"]) == 0
    assert capsys.readouterr().out == captured.out


@pytest.mark.usefixtures("no_figures")
def test_a_refused_start_leaves_what_its_message_names_and_can_be_repeated(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{'cup final' if i % 2 else 'bank rates'} {i},{'Sports' if i % 2 else 'Business'}" for i in range(12)]
    Path("news.csv").write_text("\n".join(["text,label", *rows, ",Sports", ",Sports"]) + "\n")
    command = ["train", "--data", "news.csv", "-o", "mine", *settings(), "--backbone"]
    assert main([*command, "./nowhere"]) == 4
    assert not Path("mine").exists()
    command.append(str(tiny_bert))
    assert main(command) == 3
    assert "mine/quarantine.jsonl" in "".join(capsys.readouterr().err.split())
    assert [path.name for path in Path("mine").iterdir()] == ["quarantine.jsonl"]
    assert len(Path("mine/quarantine.jsonl").read_text().splitlines()) == 2
    assert main([*command, "--set", "data.max_quarantine_share=0.5"]) == 0


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no file": (["train", "--data", "nowhere.csv"], 3, "no data file or folder 'nowhere.csv'"),
    "empty file": (["train", "--data", "{empty}"], 3, "is empty"),
    "one class": (["train", "--data", "{one_class}"], 3, "at least two labels"),
    "unseen label": (["train", "--data", "{news}", "--validation", "{unseen}"], 3, "unknown label 'Weather'"),
    "run exists": (["train", "--data", "{news}", "-o", "{run}"], 5, "exists and is not empty"),
    "recipe typo": (["train", "sead"], 2, "Did you mean 'seed'"),
    "setting typo": (["train", "--set", "train.epoch=3"], 2, "Did you mean 'train.epochs'"),
    "setting range": (["train", "--set", "train.epochs=0"], 2, "train.epochs is 0"),
    "setting form": (["train", "--set", "train.epochs"], 2, "not key=value"),
    "flag typo": (["train", "--bakcbone", "minilm"], 2, "--bakcbone"),
    "a setting as a flag behind a recipe": (
        ["train", "quickstart", "--epochs", "3"],
        2,
        "as --set train.epochs=VALUE.",
    ),
    "a Trainer's setting as a flag": (
        ["train", "--num-train-epochs", "3"],
        2,
        "Settings are given as --set train.epochs=VALUE.",
    ),
    "a setting as a flag": (["train", "--epochs=3"], 2, "--epochs=3. Settings are given as --set train.epochs=VALUE."),
    "help of a command": (["predict", "{run}"], 2, "`newslora predict --help` shows how."),
    "help of a subcommand": (["keys", "revoke"], 2, "`newslora keys revoke --help` shows how."),
    "help of all": (["nosuch"], 2, "`newslora --help` shows how."),
    "no backbone folder": (["train", "--data", "{news}", "--backbone", "./nowhere"], 4, "no backbone folder"),
    "no run": (["predict", "{run}x", "{news}"], 5, "no run folder"),
    "not a run": (["evaluate", "{folder}"], 5, "not a run folder"),
    "output suffix": (["predict", "{run}", "{news}", "-o", "out.xlsx"], 2, "'.xlsx'. Allowed: .csv"),
    "test is train": (["train", "--data", "{news}", "--test", "{news}"], 2, "same rows"),
    "resume and settings": (
        ["train", "--resume", "{run}", "--set", "train.epochs=9"],
        2,
        "For more epochs or other settings",
    ),
    "no such precision": (
        ["predict", "{run}", "{news}", "--precision", "bf61"],
        2,
        "no precision 'bf61'. Allowed: auto",
    ),
    "no such device": (["train", "--data", "{news}", "--device", "warp"], 2, "no device 'warp'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_its_exit_code(
    mistake: str, run: Path, tiny_bert: Path, news_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "one.csv").write_text("text,label\nclub wins,Sports\ncup final,Sports\n")
    (tmp_path / "unseen.csv").write_text("text,label\nclub wins,Sports\nrain at noon,Weather\n")
    places = {
        "empty": "empty.csv", "one_class": "one.csv", "unseen": "unseen.csv", "news": str(news_file), "run": str(run),
        "folder": str(tmp_path),
    }  # fmt: skip
    arguments, code, sentence = MISTAKES[mistake]
    filled = [part.format(**places) for part in arguments]
    if filled[0] == "train" and "--backbone" not in filled and "--resume" not in filled:
        filled += ["--backbone", str(tiny_bert)]
    assert main(filled) == code
    captured = capsys.readouterr()
    assert captured.err.count("newslora: ") == 1
    assert sentence in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    # so that the command can be given again, corrected
    assert {path.name for path in (tmp_path / "runs").glob("*/*")} <= {"quarantine.jsonl"}


@pytest.mark.usefixtures("no_figures")
def test_a_full_disk_says_so_and_keeps_what_was_finished(
    tiny_bert: Path,
    news_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from newslora.training import checkpoint

    flush, saves = checkpoint.files.flush_to_disk, iter(range(1000))

    def full_at_the_second_save(path: Path) -> None:
        if path.name == "tensors.safetensors" and next(saves) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    run = tmp_path / "run"
    arguments = ["train", "--backbone", str(tiny_bert), "--data", str(news_file), "-o", str(run), *settings()]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.files, "flush_to_disk", full_at_the_second_save)
        assert main(arguments) == 8
    assert "No space left on device" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000008"]
    assert main(["train", "--resume", str(run)]) == 0


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full here")
@pytest.mark.parametrize("command", ["settings", "evaluate", "dry run", "predict", "predict a few"])
def test_a_full_disk_behind_standard_output_is_told_like_any_other(
    command: str, run: Path, tiny_bert: Path, news_file: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("newslora.plan._time_step", lambda *arguments: 0.25)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"club wins cup\n")))
    arguments = {
        "settings": ["settings"],
        "evaluate": ["evaluate", str(run)],
        "dry run": ["train", "--dry-run", "--backbone", str(tiny_bert), "--data", str(news_file), *settings()],
        "predict": ["predict", str(run), str(news_file)],
        "predict a few": ["predict", str(run), "-"],
    }[command]
    with FULL.open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(arguments) == 8
    err = " ".join(capsys.readouterr().err.split())
    assert err.count("newslora: Cannot write standard output: No space left on device. To go on:") == 1


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full here")
def test_a_refusal_that_shows_at_the_end_alone_is_one_sentence_and_a_code(tmp_path: Path) -> None:
    """A line stays in the buffer until the end, where Python by itself would complain of it and exit with 120."""
    keys = [sys.executable, "-m", "newslora", "keys", "add", "--name", "desk", "--file", str(tmp_path / "keys.json")]
    with FULL.open("w") as full:
        done = subprocess.run(keys, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 8
    assert "newslora: Cannot write standard output" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full here")
def test_a_full_disk_behind_standard_error_ends_no_work_and_changes_no_code(
    run: Path, news_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []
    with (
        contextlib.suppress(OSError),
        FULL.open("w") as full,
        monkeypatch.context() as patch,
    ):  # closing it is refused too
        patch.setattr(sys, "stderr", full)
        codes.append(main(["predict", str(run), str(news_file), "-o", str(tmp_path / "out.csv")]))
        codes.append(main(["predict", str(tmp_path / "none"), str(news_file)]))
    assert codes == [0, 5]


@pytest.mark.usefixtures("no_figures")
def test_quarantine_names_row_and_reason(tiny_bert: Path, news_file: Path, tmp_path: Path) -> None:
    with news_file.open("a") as stream:
        stream.write('{"title": "", "label": "World"}\n{"title": "club wins"}\n')
    run = tmp_path / "run"
    limit = settings(data__max_quarantine_share=0.5, train__epochs=1)
    assert main(["train", "--backbone", str(tiny_bert), "--data", str(news_file), "-o", str(run), *limit]) == 0
    lines = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in lines] == [(41, "empty text"), (42, "no label")]
    assert RunFolder.open(run).data()["splits"]["train"]["quarantined"] == 2


def test_help_is_quick_and_complete() -> None:
    out = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "newslora", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("train", "evaluate", "predict", "report", "settings"):
        assert command in out.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in out.stderr.splitlines()}


def test_a_dry_run_offers_the_backbone_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    """The name may be one of the hub, which a dry run does not ask; so it goes on."""
    assert main(["train", "seed", "--backbone", "minlm", "--data", "corpus", "--dry-run"]) == 0
    assert "Did you mean 'minilm'?" in " ".join(capsys.readouterr().err.split())

"""The model card's header parses, its numbers are the evaluation's own, and its code runs."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from report_parts import HOSTILE, LABELS, make_run

import newslora
from newslora import files
from newslora.metrics.basic import SHARES
from newslora.model.adapter import read_card
from newslora.report.card import HUB_METRICS, write_card
from newslora.report.report import report_run
from newslora.runfolder import STARTED_FROM, RunFolder


def test_the_header_parses_and_its_numbers_are_the_evaluations(tmp_path: Path) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS, source="/home/somebody/news.csv")
    card = ModelCard.load(write_card(run, manifest))
    assert card.data.base_model == "roberta-base"
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-classification")
    assert card.data.language is None  # not known
    found = {(one.dataset_split, one.metric_type): one for one in card.data.eval_results}
    assert len(found) == 2 * len(HUB_METRICS)
    for name in ("validation", "test"):
        one = files.read_json(run.evaluation / f"{name}.json")
        for key, metric in HUB_METRICS.items():
            assert found[name, metric].metric_value == one[key]["value"]
            scale, digits = (100, 1) if key in SHARES else (1, 4)
            low, high = one[key]["interval"]
            bounds = f"{scale * low:.{digits}f}\N{EN DASH}{scale * high:.{digits}f}"
            assert bounds in found[name, metric].metric_name
            assert bounds in card.text
            assert f"{100 * one[key]['value']:.2f}\N{NO-BREAK SPACE}%" in card.text or key not in SHARES
        assert found[name, "accuracy"].dataset_args == {"rows": one["rows"], "sha256": one["sha256"]}
    assert "validation: Optimistic." in card.text
    assert "- Temperature: 1.5; newslora divides the logits by it" in card.text
    first = RunFolder(tmp_path / "run").evaluations()[0]
    name = min(LABELS, key=lambda label: first["per_class"][label]["recall"]["value"])
    found_of = f"{100 * first['per_class'][name]['recall']['value']:.2f}\N{NO-BREAK SPACE}%"
    assert f"Weakest label: {name}, of whose {first['name']} rows {found_of} are found" in card.text
    assert "741,124 of 124,796,164" in card.text
    assert "12" * 32 in card.text  # the training data's hash
    assert "news.csv" in card.text
    assert "/home/somebody" not in card.content  # a card travels


def test_another_adapters_numbers_stay_out(tmp_path: Path) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    stale = files.read_json(run.evaluation / "test.json") | {"adapter_sha256": "d" * 64}
    files.write_json(run.evaluation / "test.json", stale)
    card = ModelCard.load(write_card(run, manifest))
    assert {one.dataset_split for one in card.data.eval_results} == {"validation"}
    assert "No test rows were held out" in card.text


def test_what_a_person_added_to_the_header_is_kept_and_the_rest_replaced(tmp_path: Path) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    readme = run.adapter / "README.md"
    files.write_text(readme, "---\nbase_model: other\nlibrary_name: peft\n---\n# Model Card for Model ID\n")
    assert "Model ID" not in write_card(run, manifest).read_text(encoding="utf-8")
    text = readme.read_text(encoding="utf-8")
    files.write_text(readme, text.replace("---\n", "---\nlanguage: en\nlicense: apache-2.0\n", 1))
    card = ModelCard.load(write_card(run, manifest))
    assert (card.data.language, card.data.license, card.data.base_model) == ("en", "apache-2.0", "roberta-base")
    before = readme.read_bytes()
    assert write_card(run, manifest).read_bytes() == before
    files.write_text(readme, "---\n: [broken\n---\n")
    assert ModelCard.load(write_card(run, manifest)).data.language is None


def test_hostile_names_are_text(tmp_path: Path) -> None:
    labels = [HOSTILE, "a|b *c* `d` [e](f)", "体育", "---\nx: y"]
    run, manifest = make_run(tmp_path / "run", labels, source=f"{HOSTILE}.csv")
    card = ModelCard.load(write_card(run, manifest))
    assert "<script" not in card.text
    assert r"a\|b \*c\* \`d\` \[e\](f)" in card.text
    assert len(card.data.eval_results) == 2 * len(HUB_METRICS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../runs/news", "news"),
        ("/home/somebody/news/adapter", "news"),
        ("a|b*c", r"a\|b\*c"),
        ("..", ".."),
        (".", "."),
    ],
)
def test_the_adapter_it_started_from_is_named_without_its_place(name: str, shown: str, tmp_path: Path) -> None:
    run, manifest = make_run(tmp_path / "run", LABELS)
    assert "started from" not in write_card(run, manifest).read_text(encoding="utf-8")
    origin = {"adapter": name, "sha256": "ef" * 32, "trained_on": [], "copies": {"test": 7}, "unread": [name]}
    files.write_json(run.data_file, run.data() | {STARTED_FROM: origin})
    text = write_card(run, manifest).read_text(encoding="utf-8")
    assert f"- Training started from the adapter {shown}, SHA-256 `{'ef' * 32}`" in text
    assert "7 of 7,600 test rows stand among those that trained the adapter" in text
    assert f"among those that trained {shown} before is not known" in text
    assert "/home/somebody" not in text


def test_a_run_has_a_card_its_hash_does_not_rest_on_and_whose_code_runs(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = planted / "adapter" / "README.md"
    text = readme.read_text(encoding="utf-8")
    version = RunFolder.open(planted).manifest()["adapter_sha256"]
    readme.write_text("something else", encoding="utf-8")
    assert read_card(planted / "adapter").weights_sha256 == version  # checks the weights
    monkeypatch.setattr("newslora.report.report.write_report", lambda run, manifest: run.report_file)
    report_run(planted)
    assert readme.read_text(encoding="utf-8") == text
    monkeypatch.chdir(planted)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    answers = []
    for block in blocks:
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(block.replace("Striker scores", "treaty signs"), "README.md", "exec"), {})
        answers.append(out.getvalue().strip())
    assert len(blocks) == 2
    expected = newslora.Classifier.load(planted)("treaty signs twice as hosts reach final").label
    assert answers == [expected, expected]

"""What a report takes from an audit: all of it, or a word on what is missing."""

from pathlib import Path

import pytest
from report_parts import data_facts

from newslora import files
from newslora.report.audited import read_audit
from newslora.report.pages import environment
from newslora.runfolder import RunFolder

OWN = {"sha256": "12" * 32, "label_column": "label", "text_columns": ["text"]}
HEAD = "split,row,given,suggested,text\n"
ROW = "train,17,World,Sports,striker scores\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run as far as an audit is concerned."""
    found = RunFolder(tmp_path / "run")
    files.write_json(found.data_file, data_facts(["World", "Sports"]))
    labels = {"split": "train", "judged_by": "words", "its_accuracy": 0.9, "likely_wrong": 37, "rows": 1000}
    audit = {"splits": [OWN], "labels": [labels], "leakage": []}
    files.write_json(found.path / "audit" / "audit.json", audit)
    files.write_text(found.path / "audit" / "labels.csv", HEAD + ROW)
    return found


def page(run: RunFolder) -> str:
    text = environment().get_template("part-labels.html").render(audit=read_audit(run), copies=[], sources=[])
    return " ".join(text.split())


def test_a_whole_one_is_shown(run: RunFolder) -> None:
    html = page(run)
    assert "37 of 1,000 labels" in html
    assert "most probably wrong" in html
    assert "damaged" not in html


def test_an_audit_by_other_settings_is_named_and_not_shown(run: RunFolder) -> None:
    """Labels of another column, or numbers under other names, would accuse labels that the run never saw."""
    path = run.path / "audit" / "audit.json"
    audit = files.read_json(path) | {"label_names": ["World", "Sports"], "label_base": 1}
    for changed, told in (
        ({"splits": [OWN | {"label_column": "topic"}]}, "it took the label from topic, the run from label."),
        ({"splits": [OWN | {"text_columns": ["body"]}]}, "it took the text from body, the run from text."),
        *(
            (
                {"label_names": ["Sports", "World"], "label_base": base},
                "calls the labels Sports, World in order of number",
            )
            for base in (0, 1)
        ),
    ):
        files.write_json(path, audit | changed)
        html = page(run)
        assert told in html
        assert "audit the rows again with the run (--run)" in html
        assert "37 of 1,000 labels" not in html
    beside = run.path.parent / "audit.json"  # another place may hold one of the run's own reading
    files.write_json(beside, audit)
    assert "37 of 1,000 labels" in page(run)


@pytest.mark.parametrize(
    "contents",
    [
        b"split,row,given\ntrain,17,World\n",
        (HEAD + "train,17\n").encode(),
        HEAD.encode() + b"train,17,\xff,Sports,x\n",
        b"",
    ],
    ids=["a column less", "a torn line", "not UTF-8", "empty"],
)
def test_a_damaged_list_of_labels_hides_nothing_else_and_is_told(contents: bytes, run: RunFolder) -> None:
    path = run.path / "audit" / "labels.csv"
    path.write_bytes(contents)
    html = page(run)
    assert "37 of 1,000 labels" in html
    assert f"The rows themselves cannot be shown: {path} is damaged. Restore it, or audit the rows again" in html
    assert "most probably wrong" not in html
    assert "not audited yet" not in html

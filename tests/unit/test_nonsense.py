"""What Python lets through and nobody can have meant: a sentence of ours, not a TypeError out of the depths."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import newslora
from newslora.errors import NewsloraError, RunError, SettingsError
from newslora.metrics.basic import softmax
from newslora.predict.classifier import Classifier
from newslora.predict.conformal import AnswerSets

NO_RUN: dict[str, Callable[[Any, Path], object]] = {
    "load": lambda run, data: Classifier.load(run),
    "evaluate": lambda run, data: newslora.evaluate(run),
    "export": lambda run, data: newslora.export(run),
    "resume": lambda run, data: newslora.resume(run),
    "predict_file": lambda run, data: newslora.predict_file(run, data, data.with_name("out.csv")),
    "audit": lambda run, data: newslora.audit(data, run=run),
    "compare": lambda run, data: newslora.compare([run, run]),
}


@pytest.mark.parametrize("name", NO_RUN)
@pytest.mark.parametrize("given", [None, 5, b"run", ["run"]], ids=str)
def test_what_is_no_path_names_no_run(name: str, given: Any, news_file: Path) -> None:
    if name == "audit" and given is None:
        return  # an audit needs none
    sentence = f"A run is named by the path of its folder, a str or Path, not by {type(given).__name__}: {given!r}."
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        NO_RUN[name](given, news_file)


@pytest.mark.parametrize(
    ("level", "said"),
    [("a", "is 'a', which is no number."), ([0.9], "is [0.9], which is no number."), (2, "is 2."), (np.nan, "is nan.")],
)
def test_a_level_of_abstention_is_a_number(planted: Path, level: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"The level of abstention {said} Allowed: ")):
        Classifier.load(planted)("meets over border treaty", abstain=level)
    with pytest.raises(SettingsError, match=re.escape(said)):
        AnswerSets(softmax(np.eye(2).repeat(50, axis=0)), np.arange(100) // 50, level)


def test_runs_to_compare_come_in_a_list_or_each_by_itself(planted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(planted, tmp_path / "copy"))
    result = newslora.compare([planted, copy])
    assert newslora.compare(planted, str(copy)) == result
    assert newslora.compare(path for path in (planted, copy)) == result
    with pytest.raises(RunError, match="There is no run folder 'a'"):
        newslora.compare("a", "b")
    wrong: list[Any] = [None, 5, {}, "a", [planted]]
    for given in wrong:
        with pytest.raises(NewsloraError, match=r"needs at least two runs, not [01]: name another|path of its folder"):
            newslora.compare(given)

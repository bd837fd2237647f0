"""A classifier sent to another process: by its folder, and never another one than it was."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone

import newslora
from children import in_child
from newslora import files
from newslora.errors import RunError
from newslora.estimator import PackedAdapter
from newslora.predict.classifier import Classifier

TEXTS = ["minister signs peace treaty at border", "striker scores twice as club wins cup final", "treaty"]


def probabilities(classifier: Classifier) -> np.ndarray:
    return classifier.predict_proba(TEXTS)


def again(classifier: Classifier) -> Classifier:
    found: Classifier = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    return found


def test_it_answers_alike_here_there_and_out_of_a_file(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(planted.parent)
    classifier = Classifier.load(planted.name, precision="bf16", engine="padded")
    wanted = probabilities(classifier)
    monkeypatch.chdir(tmp_path)  # its path was a relative one
    found = again(classifier)
    assert found is not classifier
    assert (found.engine.name, found.precision.name, found.version) == ("padded", "bf16", classifier.version)
    assert np.array_equal(probabilities(found), wanted)
    assert np.array_equal(in_child(probabilities, classifier), wanted)
    joblib.dump(classifier, tmp_path / "news.joblib")
    assert (tmp_path / "news.joblib").stat().st_size < 1000  # no weights
    assert np.array_equal(probabilities(joblib.load(tmp_path / "news.joblib")), wanted)
    assert np.array_equal(probabilities(again(found)), wanted)


def test_another_classifier_in_its_place_is_refused(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    kept = pickle.dumps(Classifier.load(make_adapter(tmp_path / "one", seed=1)))
    pickle.loads(kept)  # noqa: S301
    make_adapter(tmp_path / "one", seed=2)
    with pytest.raises(
        RunError, match=r"one holds other weights \(\w+\) than were loaded from it \(\w+\)\. Load it again"
    ):
        pickle.loads(kept)  # noqa: S301
    (tmp_path / "one").rename(tmp_path / "two")
    with pytest.raises(RunError, match=r"There is no run folder '.*one'"):
        pickle.loads(kept)  # noqa: S301


def test_another_temperature_in_its_place_is_refused(planted: Path, tmp_path: Path) -> None:
    adapter = PackedAdapter.read(planted / "adapter").write(tmp_path / "adapter")
    kept = pickle.dumps(Classifier.load(adapter))
    record = json.loads((adapter / "calibration.json").read_text())
    files.write_json(adapter / "calibration.json", record | {"temperature": 2.5})
    with pytest.raises(RunError, match=r"holds another temperature \(2\.5\) than was loaded from it"):
        pickle.loads(kept)  # noqa: S301


def test_one_whose_folder_is_gone_says_what_to_pickle_in_its_place(planted: Path) -> None:
    packed = PackedAdapter.read(planted / "adapter")
    with pytest.raises(
        RunError, match=r"Pickle the fitted NewsClassifier it is from, or call newslora\.Classifier\.load"
    ):
        pickle.dumps(packed.classifier())
    assert np.array_equal(probabilities(again_packed(packed).classifier()), probabilities(packed.classifier()))


def again_packed(packed: PackedAdapter) -> PackedAdapter:
    found: PackedAdapter = pickle.loads(pickle.dumps(packed))  # noqa: S301
    return found


def test_a_pickle_that_holds_the_parts_of_a_classifier_is_refused() -> None:
    """As the first newsloras wrote: __newobj__ and a dict of what was in it."""
    with pytest.raises(RunError, match=r"older newslora, part by part.* newslora\.Classifier\.load\(FOLDER\)"):
        pickle.loads(b"cnewslora.predict.classifier\nClassifier\n)\x81}X\x04\x00\x00\x00cardNsb.")  # noqa: S301


def test_an_estimator_of_before_has_newer_parameters_at_their_defaults() -> None:
    """repr, clone and fit asked for `class_weight`, which older pickles do not hold."""
    state = newslora.NewsClassifier(epochs=3).__getstate__()
    older = {name: value for name, value in state.items() if name not in ("class_weight", "max_length")}
    found = newslora.NewsClassifier.__new__(newslora.NewsClassifier)
    found.__setstate__(older)
    assert (found.epochs, found.class_weight, found.max_length) == (3, None, None)
    assert repr(clone(found)) == "NewsClassifier(epochs=3)"

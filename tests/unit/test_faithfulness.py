"""The test of explanations passes true ones and does not pass scores that mean nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from newslora.cli.explained import faithfulness_verdict
from newslora.config import DataSettings
from newslora.errors import DataError, SettingsError
from newslora.evaluation.faithfulness import check_faithfulness, check_run, sample_texts
from newslora.explanation.attributions import Explanation, explain
from newslora.explanation.words import Word
from newslora.predict.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(planted: Path) -> Classifier:
    return Classifier.load(planted)


@pytest.fixture(scope="module")
def explained(classifier: Classifier, planted: Path) -> list[Explanation]:
    """Test rows of the label that a word decides."""
    lines = (planted.parent / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return explain(classifier, [row["text"] for row in rows if row["label"] == "World"])


def test_true_explanations_are_shown_to_be_faithful(classifier: Classifier, explained: list[Explanation]) -> None:
    result = check_faithfulness(classifier, explained)
    assert result["rows"] == len(explained) == 20
    assert result["top"] > 0.8  # the deciding word goes with the first deletion
    low, high = result["difference"]["interval"]
    assert low <= result["difference"]["value"] <= high
    assert result["difference"]["value"] == pytest.approx(result["top"] - result["random"])
    assert [one["share"] for one in result["by_share"]] == [0.05, 0.1, 0.2, 0.5]
    for kind in ("top", "random"):  # of as many rows and draws for each share
        assert np.mean([one[kind] for one in result["by_share"]]) == pytest.approx(result[kind])
    assert result["faithful"]
    assert low > 0.3
    assert result["verdict"] == "Explanations are faithful on these rows."


def test_shuffled_scores_are_not(classifier: Classifier, explained: list[Explanation]) -> None:
    random = np.random.default_rng(0)

    def shuffled(one: Explanation) -> Explanation:
        scores = random.permutation([word.score for word in one.words])
        words = tuple(Word(w.text, w.start, w.end, float(s)) for w, s in zip(one.words, scores, strict=True))
        return dataclasses.replace(one, words=words)

    result = check_faithfulness(classifier, [shuffled(one) for one in explained])
    low, high = result["difference"]["interval"]
    assert low < 0 < high
    assert not result["faithful"]
    assert "not shown" in result["verdict"]


def test_deletion_leaves_the_other_words(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def remember(texts: list[str]) -> NDArray[np.float64]:
        seen.extend(texts)
        return np.full((len(texts), 2), 0.5)

    monkeypatch.setattr(classifier, "predict_proba", remember)
    words = (Word("a", 0, 1, 3.0), Word("b", 2, 3, -1.0), Word(",", 3, 4, 2.0), Word("c", 5, 6, 0.0))
    one = Explanation("a b, c", "World", 0.9, "World", words, 1.0, 0.0, 32, None)
    result = check_faithfulness(classifier, [one, one])
    assert seen[2] == "b, c"  # 5 % of four words is still one
    assert seen[2 + 3 * 6] == "b c"  # half of them
    assert all(len(text.replace(" ", "")) == 2 for text in seen[2 + 3 * 6 : 2 + 4 * 6])
    assert result["incomplete"] == 2  # scores of 4 nats in all, where 1 is to be explained
    assert result["faithful"] is None  # an answer that never moves shows nothing
    assert result["difference"]["interval"] is None
    assert result["verdict"].startswith("No verdict")
    assert "random. No verdict" in faithfulness_verdict(result)


def test_a_single_text_has_no_verdict(classifier: Classifier, explained: list[Explanation]) -> None:
    result = check_faithfulness(classifier, explained[:1])
    assert result["difference"]["value"] > 0.3
    assert (result["difference"]["interval"], result["faithful"]) == (None, None)


def test_texts_are_drawn_equally_often_and_stay_in_order(tmp_path: Path) -> None:
    """Chi-square over 500 seeds: no row, early or late, is likelier; a fixed total leaves 7 degrees of freedom."""
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"text {place}\n" for place in range(8)))
    drawn = [sample_texts(str(tmp_path / "a.csv"), 4, DataSettings(), seed) for seed in range(500)]
    assert all(len(one) == 4 and one == sorted(one) for one in drawn)
    counts = np.array([sum(f"text {place}" in one for one in drawn) for place in range(8)])
    assert chi2(7).sf(float(((counts - 250) ** 2).sum() / (500 * 0.25)) * 7 / 8) > 1e-4


def test_a_run_is_checked_on_rows_of_a_file(planted: Path, tmp_path: Path) -> None:
    source = str(planted.parent / "test.jsonl")
    result = check_run(planted, source, 12, DataSettings(), device="cpu")
    assert result["rows"] == 12
    assert json.loads((planted / "evaluation" / "faithfulness.json").read_text()) == result
    texts = sample_texts(source, 12, DataSettings(), seed=0)
    assert len(set(texts)) == 12
    assert len(sample_texts(source, 1000, DataSettings(), seed=0)) == 40
    with pytest.raises(SettingsError, match="2 or more"):
        check_run(planted, source, 1, DataSettings())
    (tmp_path / "one.csv").write_text("text\nclub wins\n")
    with pytest.raises(DataError, match=r"Usable rows in .*: 1\."):
        sample_texts(str(tmp_path / "one.csv"), 5, DataSettings(), seed=0)

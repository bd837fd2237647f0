"""Do explanations say what the classifier goes by? Delete the words they name, and see whether the answer moves.

The measure is comprehensiveness (DeYoung et al. 2020, "ERASER: A Benchmark to Evaluate Rationalized NLP Models"): the
predicted label's probability on the text less that on the text without the words of greatest score, averaged over
several shares of words. Deleting any words moves it, so the same number of random words is deleted beside it, and the
rows' paired differences are what is judged.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora import files
from newslora.arguments import as_count
from newslora.config import DataSettings
from newslora.data.articles import usable_text
from newslora.errors import DataError
from newslora.explanation.attributions import Explanation, explain
from newslora.explanation.words import Word
from newslora.metrics.intervals import CONFIDENCE_LEVEL, RESAMPLES, Bounds, rate
from newslora.predict.bulk import open_texts
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

SHARES = (0.05, 0.1, 0.2, 0.5)  # of a text's words, at least one; ERASER's, less its smallest
SEED = 0  # of rows drawn, of words deleted at random, and of the bootstrap
DRAWS = 5  # random deletions of each size
FILE = "faithfulness.json"
FAITHFUL = "Explanations are faithful on these rows."
NO_VERDICT = "No verdict: deletion moves every row alike, which tells nothing of other rows."
NOT_SHOWN = "It is not shown that explanations are faithful on these rows."


def check_run(
    run_path: Path,
    source: str,
    rows: int,
    settings: DataSettings,
    device: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Explain some rows of a source, judge the explanations, and write evaluation/faithfulness.json.

    Args:
        run_path: a finished run.
        source: as `data.source`; needs no labels.
        rows: how many, drawn without replacement; all where there are fewer.
        settings: for column names and header.
        device: 'cpu', 'cuda', ...; None picks.
        progress: told the rows explained.

    Raises:
        SettingsError: fewer than two rows asked for.
        DataError: rows that cannot be read, or fewer than two usable ones.
        MissingExtraError: captum is not installed.
    """
    as_count(rows, "The number of rows (--rows)", least=2, why=": an interval needs them; 100 tell something")
    run = RunFolder.open(run_path)
    classifier = Classifier.load(run_path, device)
    texts = sample_texts(source, rows, settings, SEED, classifier.card.text_columns)
    result = check_faithfulness(classifier, explain(classifier, texts, progress=progress))
    result = {"source": source} | result | {"adapter_sha256": classifier.card.weights_sha256}
    files.write_json(run.evaluation / FILE, result)
    return result


def sample_texts(source: str, rows: int, settings: DataSettings, seed: int, trained: Sequence[str] = ()) -> list[str]:
    """That many usable texts of a source, drawn without replacement, in its order; `trained` as `open_texts` takes it.

    Raises:
        DataError: rows that cannot be read, or fewer than two usable ones.
    """
    table, columns = open_texts(source, settings, trained)
    usable = (text for text, problem in (usable_text(row, columns) for row in table.rows) if problem is None)
    random = np.random.default_rng(seed)
    kept: list[tuple[int, str]] = []  # a reservoir (Vitter 1985, algorithm R), so that any source fits in memory
    seen = 0
    for place, text in enumerate(usable):
        seen += 1
        if place < rows:
            kept.append((place, text))
        elif (spot := int(random.integers(place + 1))) < rows:
            kept[spot] = (place, text)
    if seen < 2:
        raise DataError(f"Usable rows in '{source}': {seen}. Explanations are judged over two at least.")
    return [text for _, text in sorted(kept)]


def check_faithfulness(classifier: Classifier, explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Judge explanations of predicted labels by deleting words.

    Args:
        classifier: that was explained.
        explanations: of R texts.

    Returns:
        Counts, the mean drop of the probability after deleting top and random words (`by_share` and over all shares),
        their mean difference with its 95 % bootstrap interval, `faithful`, and the verdict as a sentence. Where all
        differences are equal, as of a single text, there is no interval and no verdict: `faithful` is None.
    """
    random = np.random.default_rng(SEED)
    edited: list[str] = []
    for one in explanations:
        for share in SHARES:
            edited.append(_without(one, _top(one, share)))
            edited += [_without(one, _some(one, share, random)) for _ in range(DRAWS)]
    probabilities = classifier.predict_proba([one.text for one in explanations] + edited)
    labels = [classifier.labels.index(one.label) for one in explanations]
    whole = probabilities[np.arange(len(labels)), labels]
    after = probabilities[len(labels) :].reshape(len(labels), len(SHARES), 1 + DRAWS, -1)
    drops = whole[:, None, None] - after[np.arange(len(labels)), :, :, labels]  # (R, shares, 1 + draws)
    top, chance = drops[:, :, 0], drops[:, :, 1:].mean(-1)
    differences = (top - chance).mean(1)
    bounds = _mean_interval(differences)
    faithful = None if bounds is None else bounds[0] > 0
    return {
        "rows": len(explanations),
        "top": float(top.mean()),
        "random": float(chance.mean()),
        "difference": rate(float(differences.mean()), bounds),
        "confidence_level": CONFIDENCE_LEVEL,
        "by_share": [
            {"share": share, "top": float(top[:, place].mean()), "random": float(chance[:, place].mean())}
            for place, share in enumerate(SHARES)
        ],
        "draws": DRAWS,
        "incomplete": sum(not one.complete for one in explanations),
        "faithful": faithful,
        "verdict": NO_VERDICT if faithful is None else FAITHFUL if faithful else NOT_SHOWN,
    }


def _mean_interval(values: NDArray[np.float64]) -> Bounds:
    """Bias-corrected bootstrap interval of the mean over rows; None where these are equal but for rounding."""
    from scipy.stats import bootstrap

    if np.ptp(values) < 1e-12:
        return None
    random = np.random.default_rng(SEED)
    result = bootstrap((values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE_LEVEL, rng=random)
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def _many(one: Explanation, share: float) -> int:
    return max(1, round(share * len(one.words))) if one.words else 0


def _top(one: Explanation, share: float) -> list[Word]:
    return sorted(one.words, key=lambda word: -word.score)[: _many(one, share)]


def _some(one: Explanation, share: float, random: np.random.Generator) -> list[Word]:
    return [one.words[place] for place in random.choice(len(one.words), _many(one, share), replace=False)]


def _without(one: Explanation, words: Sequence[Word]) -> str:
    """The text with these words deleted and nothing put in their place."""
    parts = []
    end = 0
    for word in sorted(words, key=lambda word: word.start):
        parts.append(one.text[end : word.start])
        end = word.end
    return " ".join("".join([*parts, one.text[end:]]).split())

"""A file and a run -> the same rows with predictions, in one call."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from newslora.arguments import as_path
from newslora.config import data_changes, load_recipe
from newslora.data.sources import parse_source
from newslora.errors import SettingsError
from newslora.explanation.attributions import heaviest_words
from newslora.predict.answers import Answers, Words
from newslora.predict.bulk import Counted, predict_source
from newslora.predict.classifier import Classifier
from newslora.predict.opening import DEFAULT
from newslora.training.signals import stop_on_signal


def predict_file(
    run: str | os.PathLike[str] | Classifier,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    top_k: int | None = None,
    probabilities: bool = False,
    abstain: float | None = None,
    explain: int | None = None,
    fresh: bool = False,
    changes: Mapping[str, Any] | None = None,
    precision: str = DEFAULT,
    device: str | None = None,
    progress: Callable[[int, float | None], None] = lambda rows, share: None,
    note: Callable[[str], None] = lambda text: None,
) -> Counted:
    """Classify every row of a source into a file, which appears when it is whole, as `newslora predict` does.

    Finished rows are kept in `OUTPUT.partial` until then: however it was stopped, the same call goes on behind them and ends
    with the same bytes.

    Args:
        run: a finished run folder, an export, or a classifier loaded from either.
        source: as `data.source`: a file, a folder, a hub name.
        output: the file to make, .csv or .jsonl, also with .gz or .zst behind, or .parquet.
        top_k: also tell this many labels, likeliest first, each with its probability.
        probabilities: also tell every label's probability.
        abstain: decide a row only where its answer set at this level is a single label.
        explain: also tell this many of the words that weigh most in each answer.
        fresh: begin again, whatever an earlier call left.
        changes: settings of the section data for reading the source, such as `{"data.text_columns": ["body"]}`.
        precision, device: as `Classifier.load` takes them, where it is not loaded yet.
        progress: told the finished rows and the share of the source read (None where unknown), after each chunk.
        note: told what a person should know of how the source was read.

    Returns:
        How many rows there were, and how they came out.

    Raises:
        NewsloraError: one of its kinds; see `newslora.predict.bulk.predict_source`.
        InterruptedRun: Ctrl-C or SIGTERM; a KeyboardInterrupt. Finished rows are kept.

    Example:
        >>> newslora.predict_file("runs/mine", "input.csv", "output.parquet", top_k=3).predicted  # doctest: +SKIP
        1000
    """
    path = as_path(output, "The output")
    if not isinstance(run, Classifier):
        classifier = Classifier.load(run, device, precision)
    elif device is None and precision == DEFAULT:
        classifier = run
    else:
        raise SettingsError(
            "A classifier that is loaded keeps its device and precision: name the run folder in its place."
        )
    answers = answers_of(classifier, top_k, probabilities, abstain, explain)
    data = load_recipe("seed", data_changes(changes)).data
    name = parse_source(source).text
    with stop_on_signal() as request:
        return predict_source(
            classifier, name, path, data, progress, answers, fresh, lambda: request.signal_number, note
        )


def answers_of(
    classifier: Classifier, top_k: int | None, probabilities: bool, abstain: float | None, explain: int | None
) -> Answers:
    """What to tell of each row, refused before a row is read where it cannot be had; arguments as in `predict_file`.

    Raises:
        SettingsError, MissingExtraError: what is asked for cannot be had of this classifier, or here.
    """
    words = None if explain is None else Words(explain, heaviest_words(classifier))
    answers = Answers(classifier.labels, top_k, probabilities, abstain, classifier.multi_label, words)
    if abstain is not None:
        classifier.answer_sets(abstain)
    return answers

"""The scikit-learn estimator: the same run as the command line, and scikit-learn's rules for whatever text allows."""

import inspect
import json
import pickle
import signal
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from conftest import ARTICLES
from newslora import Classifier, NewsClassifier, explain
from newslora.config import load_recipe, setting_fields
from newslora.errors import DataError, NewsloraError, SettingsError
from newslora.estimator import SETTINGS, PackedAdapter, _Printing, read_texts
from newslora.runfolder import RunFolder

TEXTS = [f"{text} {number}" for number in range(10) for texts in ARTICLES.values() for text in texts]
LABELS = [label for _ in range(10) for label, texts in ARTICLES.items() for _ in texts]
WORDS = sorted({word for texts in ARTICLES.values() for text in texts for word in text.split()})
QUICK = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-2, "warmup_steps": 0, "precision": "fp32"}


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder of tiny_bert's shape that tells words apart, so that a second of training learns; and without a head."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    config = AutoConfig.from_pretrained(tiny_bert)
    config.initializer_range = 0.2  # BERT's 0.02 makes all texts nearly one vector
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def module_patches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for module fixtures too; and no report, which takes five times as long as these fits and has its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("newslora.pipeline.write_report", lambda run, manifest: None)
        yield


@pytest.fixture
def news(encoder: str) -> NewsClassifier:
    return NewsClassifier(backbone=encoder, **QUICK)


@pytest.fixture(scope="module")
def fitted(encoder: str, module_patches: None) -> NewsClassifier:
    """Shared by tests that only ask it."""
    return NewsClassifier(backbone=encoder, **QUICK).fit(TEXTS, LABELS)


# --- one path with the command line ---------------------------------------------------------------------------------


def test_the_command_line_trains_the_same_adapter(
    news: NewsClassifier, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from newslora.cli.app import main

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in zip(TEXTS, LABELS, strict=True)))
    run = tmp_path / "run"
    settings = {
        "model.backbone": encoder, "data.label_names": "[]", "data.validation_rows": 4, "train.epochs": 2,
        "train.batch_size": 8, "train.learning_rate": 3e-2, "train.warmup_steps": 0, "train.precision": "fp32",
        "train.seed": 7,
    }  # fmt: skip
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    try:
        code: Any = main(["train", "quickstart", "--data", str(rows), "--output", str(run), *flags])
    except SystemExit as end:
        code = end.code
    assert code == 0, capsys.readouterr()
    news.set_params(random_state=7, epochs=2).fit(TEXTS, LABELS)
    theirs = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    assert news.adapter_.contents["adapter_model.safetensors"] == theirs
    assert news.classes_.tolist() == list(Classifier.load(run).labels)
    assert np.array_equal(news.predict_proba(TEXTS), Classifier.load(run).predict_proba(TEXTS))


def test_every_parameter_reaches_the_run(encoder: str, tmp_path: Path) -> None:
    values = {
        "backbone": encoder, "rank": 2, "alpha": 3.5, "dropout": 0.25, "targets": "all-linear", "epochs": 1,
        "batch_size": 20, "learning_rate": 3e-3, "warmup_steps": 1, "weight_decay": 0.125, "precision": "fp32",
        "random_state": 11,
    }  # fmt: skip
    assert values.keys() == SETTINGS.keys()
    model = NewsClassifier(**values, validation_fraction=0.25, runs_folder=tmp_path).fit(TEXTS, LABELS)
    recipe = RunFolder.open(Path(model.run_)).recipe()
    unset = load_recipe("quickstart")
    for name, key in SETTINGS.items():
        section, _, setting = key.partition(".")
        assert getattr(getattr(recipe, section), setting) == values[name]
        assert getattr(getattr(unset, section), setting) != values[name], f"{name} proves nothing: it is the default"
    assert recipe.data.validation_rows == 10


def test_every_setting_is_the_recipes_unless_given() -> None:
    defaults = {name: one.default for name, one in inspect.signature(NewsClassifier.__init__).parameters.items()}
    assert {defaults[name] for name in SETTINGS} == {None}
    assert set(SETTINGS.values()) <= {name for name, _ in setting_fields()}


def test_a_recipe_object_brings_settings_that_have_no_parameter(news: NewsClassifier, tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", {"train.schedule": "linear", "data.max_length": 9, "data.test": "gone.csv"})
    news.set_params(recipe=recipe, epochs=1, runs_folder=tmp_path).fit(TEXTS, LABELS)
    used = RunFolder.open(Path(news.run_)).recipe()
    assert (used.train.schedule, used.data.max_length, used.data.test) == ("linear", 9, None)


# --- what is learnt -------------------------------------------------------------------------------------------------


def test_it_learns_and_answers_in_the_order_of_classes(fitted: NewsClassifier) -> None:
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (40, 2)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert fitted.classes_.tolist() == ["Sports", "World"]
    assert fitted.predict(TEXTS).tolist() == fitted.classes_[probabilities.argmax(axis=1)].tolist()
    assert fitted.score(TEXTS, LABELS) == 1
    assert [entry["epoch"] for entry in fitted.history_] == [1, 2, 3, 4]
    assert 1 <= fitted.best_epoch_ <= 4


@pytest.mark.parametrize(
    ("world", "sports", "kind"),
    [
        pytest.param(10, 9, "i", id="ints whose words sort otherwise"),
        pytest.param(-2, -10, "i", id="negative"),
        pytest.param(True, False, "b", id="bool"),
        pytest.param(2.0, 1.0, "f", id="whole floats"),
        pytest.param("b ", "b", "U", id="words that differ by a space"),
        pytest.param("Ja", "ja", "U", id="words that differ by case"),
    ],
)
def test_labels_keep_their_dtype_and_meaning(news: NewsClassifier, world: Any, sports: Any, kind: str) -> None:
    labels = np.array([world if label == "World" else sports for label in LABELS])
    news.fit(TEXTS, labels)
    assert news.classes_.dtype == labels.dtype
    assert news.classes_.dtype.kind == kind
    assert news.classes_.tolist() == sorted([world, sports])
    assert news.predict(TEXTS).tolist() == labels.tolist()


def test_a_subset_of_the_recipes_label_names_adds_no_class(news: NewsClassifier) -> None:
    """quickstart names four labels; a fold may hold two of them, and predict_proba must have two columns."""
    given = load_recipe("quickstart").data.label_names
    assert given is not None
    assert set(LABELS) < set(given)
    assert news.set_params(epochs=1).fit(TEXTS, LABELS).predict_proba(TEXTS[:1]).shape == (1, 2)


def test_rows_held_out_choose_the_epoch_and_none_means_all_train(news: NewsClassifier, tmp_path: Path) -> None:
    news.set_params(epochs=1, runs_folder=tmp_path)
    counts = {}
    for fraction in (None, 0.01, 0.3):
        news.set_params(validation_fraction=fraction).fit(TEXTS, LABELS)
        splits = RunFolder.open(Path(news.run_)).data()["splits"]
        counts[fraction] = (splits["train"]["rows"], splits["validation"]["rows"])
    assert counts == {None: (40, 40), 0.01: (38, 2), 0.3: (28, 12)}


def test_random_state_decides_and_repeats(news: NewsClassifier) -> None:
    def weights(state: Any) -> bytes:
        news.set_params(epochs=1, random_state=state).fit(TEXTS, LABELS)
        return news.adapter_.contents["adapter_model.safetensors"]

    assert weights(None) == weights(load_recipe("quickstart").train.seed)
    assert weights(np.int64(1)) == weights(1) != weights(None)
    generator = np.random.RandomState(0)
    assert weights(generator) != weights(generator)


# --- X and y --------------------------------------------------------------------------------------------------------


def test_every_shape_of_one_text_a_row_reads_the_same() -> None:
    texts = [" one ", "two\n", ""]
    column = [[text] for text in texts]
    forms = [texts, tuple(texts), np.array(texts), np.array(texts, dtype=object), column, np.array(column)]
    assert [read_texts(form) for form in forms] == [["one", "two", ""]] * 6


def test_pandas_series_and_one_column_frames_read_the_same(fitted: NewsClassifier) -> None:
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(TEXTS, index=range(100, 140))
    for form in (series, series.to_frame(), series.astype("string"), series.astype("category")):
        assert read_texts(form) == TEXTS
    with pytest.raises(DataError, match="1 of 2 rows of X are not str: rows 1, counted from 0"):
        fitted.predict(pandas.Series(["a", None], dtype="string"))


@pytest.mark.parametrize("method", ["fit", "predict"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "X holds no text: it has 0 rows"),
        ("one text", "X is one str, not a list of texts"),
        ([["title", "body"]] * 40, r"list of shape \(40, 2\), not one text a row"),
        ((text for text in TEXTS), r"X is generator of shape \(\)"),
        ([*TEXTS[:38], None, 3.5], "2 of 40 rows of X are not str: rows 38, 39, counted from 0 .the first is None"),
        (["\udcff", *TEXTS[1:]], "1 of 40 rows of X are not valid Unicode .* rows 0, counted"),
    ],
)
def test_x_that_is_no_text_is_refused(fitted: NewsClassifier, method: str, texts: Any, message: str) -> None:
    call = (lambda: clone(fitted).fit(texts, LABELS)) if method == "fit" else (lambda: fitted.predict(texts))
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)


def test_fit_names_the_rows_of_empty_texts(news: NewsClassifier) -> None:
    texts = ["", "  \n", "\u200b", *TEXTS[3:]]
    with pytest.raises(DataError, match="3 of 40 rows of X are empty: rows 0, 1, 2, counted from 0"):
        news.fit(texts, LABELS)
    with pytest.raises(DataError, match="rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more"):
        news.fit([""] * 40, LABELS)
    with pytest.raises(NotFittedError):
        check_is_fitted(news)


def test_predict_answers_an_empty_text_too(fitted: NewsClassifier) -> None:
    probabilities = fitted.predict_proba([TEXTS[0], "", " \t"])
    assert probabilities.shape == (3, 2)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.allclose(probabilities[1], probabilities[2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (LABELS[:-1], "X has 40 rows and y has 39"),
        (["World"] * 40, "y holds one class only, 'World'"),
        (["", *LABELS[1:]], "1 of 40 rows of y are without a label: rows 0, counted from 0"),
        (np.array([None, *LABELS[1:]], dtype=object), "1 of 40 rows of y are without a label: rows 0,"),
        (np.array([1.0, np.nan] * 20), "20 of 40 rows of y are without a label: rows 1, 3"),
        (np.array([1.0, np.inf] * 20), "20 of 40 rows of y are without a label: rows 1, 3"),
        (
            np.array([date(2026, 1, 1), *LABELS[1:]], dtype=object),
            "1 of 40 rows of y are neither text nor plain numbers: rows 0,",
        ),
        ([["World"], ["World", "Sports"]] * 20, "y holds lists or sets of labels.*MultiLabelBinarizer"),
        ([{"World"}, {"World", "Sports"}] * 20, "y holds lists or sets of labels.*MultiLabelBinarizer"),
    ],
)
def test_y_that_is_no_labels_is_refused(news: NewsClassifier, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        news.fit(TEXTS, labels)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"validation_fraction": 1.5}, "validation_fraction is 1.5"),
        ({"validation_fraction": 0}, "validation_fraction is 0"),
        ({"epochs": 0}, "train.epochs is 0"),
        ({"random_state": -1}, "train.seed is -1"),
        ({"recipe": "quickstar"}, "Did you mean 'quickstart'"),
    ],
)
def test_a_parameter_out_of_range_is_refused(news: NewsClassifier, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        news.set_params(**parameters).fit(TEXTS, LABELS)


def test_too_few_rows_to_hold_some_out_say_so(news: NewsClassifier) -> None:
    with pytest.raises(DataError, match=r"holds out 2 of 3 rows.*validation_fraction=None"):
        news.fit(TEXTS[:3], LABELS[:3])
    assert news.set_params(validation_fraction=None, epochs=1).fit(TEXTS[:3], LABELS[:3]).classes_.size == 2


def test_before_fit_it_is_not_fitted(news: NewsClassifier) -> None:
    with pytest.raises(NotFittedError):
        news.predict(TEXTS)


def test_a_fit_that_fails_leaves_the_earlier_one(news: NewsClassifier) -> None:
    before = news.set_params(epochs=1).fit(TEXTS, LABELS).predict_proba(TEXTS)
    with pytest.raises(NewsloraError):
        news.set_params(rank=0).fit(TEXTS, [1, 2] * 20)
    assert news.classes_.tolist() == ["Sports", "World"]
    assert np.array_equal(news.predict_proba(TEXTS), before)


# --- what it leaves behind ------------------------------------------------------------------------------------------


class Watching(pickle.Unpickler):
    """Notes which modules a pickle calls upon."""

    modules: set[str]

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return super().find_class(module, name)


def test_a_pickle_answers_alike_and_holds_no_torch(fitted: NewsClassifier, tmp_path: Path) -> None:
    expected = fitted.predict_proba(TEXTS)  # the model is loaded now, and must stay out of the pickle
    path = tmp_path / "news.pickle"
    path.write_bytes(pickle.dumps(fitted))
    with path.open("rb") as stream:
        reader = Watching(stream)
        reader.modules = set()
        again = reader.load()
    assert {module.partition(".")[0] for module in reader.modules} == {"newslora", "numpy"}
    assert np.array_equal(again.predict_proba(TEXTS), expected)
    joblib.dump(fitted, tmp_path / "news.joblib")
    assert np.array_equal(joblib.load(tmp_path / "news.joblib").predict_proba(TEXTS), expected)


def test_a_fit_can_be_explained_though_its_folder_is_gone(fitted: NewsClassifier) -> None:
    again = PackedAdapter(fitted.adapter_.contents).classifier()
    one = explain(again, TEXTS[0])
    assert one.probability == pytest.approx(again(TEXTS[0]).probability, abs=1e-5)


def test_the_adapter_can_be_written_for_other_tools(fitted: NewsClassifier, tmp_path: Path) -> None:
    folder = fitted.adapter_.write(tmp_path / "adapter")
    assert PackedAdapter.read(folder).contents == fitted.adapter_.contents
    assert np.array_equal(Classifier.load(folder).predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_nothing_stays_on_disk_unless_asked(
    news: NewsClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(temporary)
    news.set_params(epochs=1).fit(TEXTS, LABELS).predict(TEXTS)
    assert list(temporary.iterdir()) == []
    assert news.run_ is None


def test_each_fit_keeps_a_run_of_its_own(news: NewsClassifier, tmp_path: Path) -> None:
    runs = tmp_path / "new" / "runs"
    news.set_params(epochs=1, runs_folder=runs)
    first, second = (news.fit(TEXTS, LABELS).run_ for _ in range(2))
    assert first != second
    assert {Path(first).parent, Path(second).parent} == set(runs.iterdir())
    assert RunFolder.open(Path(second)).complete
    kept = Classifier.load(second)
    assert kept.labels == ("Sports", "World")  # the words of y, though its rows are written by number
    assert np.array_equal(kept.predict_proba(TEXTS), news.predict_proba(TEXTS))


def test_verbose_prints_epochs(news: NewsClassifier, capsys: pytest.CaptureFixture[str]) -> None:
    news.set_params(epochs=2, verbose=1).fit(TEXTS, LABELS)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines if line.startswith("epoch")] == ["epoch 1:", "epoch 2:"]
    news.set_params(verbose=0).fit(TEXTS, LABELS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_a_grid_search_too(
    news: NewsClassifier, monkeypatch: pytest.MonkeyPatch, number: int, ends: type[BaseException]
) -> None:
    """An ordinary exception would be logged as a failed fit, and the search would go on."""
    sent = []

    def step(self: _Printing, rows: int, loss: float) -> None:
        if not sent:
            sent.append(number)
            signal.raise_signal(number)

    monkeypatch.setattr(_Printing, "step", step)
    search = GridSearchCV(news.set_params(verbose=1), {"epochs": [1, 2]}, cv=2, error_score=0)
    with pytest.raises(ends) as caught:
        search.fit(TEXTS, LABELS)
    assert sent == [number]
    assert "--resume" not in str(caught.value)  # the run it names would be gone


# --- scikit-learn's tools -------------------------------------------------------------------------------------------


def test_clone_takes_parameters_and_nothing_learnt(fitted: NewsClassifier) -> None:
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert again.get_params()["learning_rate"] == 3e-2
    assert not hasattr(again, "classes_")


def test_it_works_in_a_pipeline_a_cross_validation_and_a_grid(news: NewsClassifier) -> None:
    shout = make_pipeline(FunctionTransformer(lambda texts: [text.upper() for text in texts]), news)
    quiet = make_pipeline(FunctionTransformer(lambda texts: [text.lower() for text in texts]), news)
    scores = cross_val_score(quiet, TEXTS, LABELS, cv=2, error_score="raise")
    assert scores.tolist() == [1, 1]
    # in capitals every word is unknown, so what the pipeline hands on does matter
    assert cross_val_score(shout, TEXTS, LABELS, cv=2, error_score="raise").max() < 1
    grid = {"rank": np.array([4]), "learning_rate": np.array([1e-6, 3e-2], dtype=np.float32)}
    search = GridSearchCV(news, grid, cv=2, scoring="neg_log_loss", error_score="raise").fit(TEXTS, np.array(LABELS))
    assert search.best_params_["learning_rate"] == np.float32(3e-2)
    assert search.predict(TEXTS).tolist() == LABELS


# --- scikit-learn's own checks --------------------------------------------------------------------------------------


class OnNumbers(NewsClassifier):
    """The estimator for scikit-learn's checks, which know numbers only: a row of numbers is told in words.

    What the checks say of X's validation is said of this class; what they say of parameters, labels, state, pickling,
    repeated fits and answers is said of NewsClassifier.
    """

    fits = 0

    def told(self, X: Any, **how: Any) -> list[str]:  # noqa: N803
        numbers = np.asarray(validate_data(self, X, **how), dtype=float)
        places = 7 * np.arange(numbers.shape[1]) + np.floor(2 * numbers).astype(int)
        return [" ".join(WORDS[place % len(WORDS)] for place in row) for row in places]

    def fit(self, X: Any, y: Any) -> "OnNumbers":  # noqa: N803
        type(self).fits += 1
        super().fit(self.told(X), y)
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        return super().predict_proba(self.told(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        tags.classifier_tags.poor_score = True  # numbers told in words by a random encoder, for one epoch
        return tags


# check -> why it does not run here
LEFT_OUT = {
    "check_array_api_input": "needs SCIPY_ARRAY_API=1 in the environment before scipy is imported; texts have none",
    "check_classifiers_multilabel_output_format_decision_function": "there is no decision_function: probabilities decide",
}
# checks that say the most of this estimator; their names are scikit-learn's
MUST_PASS = {
    "check_classifiers_classes", "check_classifiers_one_label", "check_classifiers_regression_target",
    "check_classifiers_multilabel_output_format_predict", "check_classifiers_multilabel_output_format_predict_proba",
    "check_classifiers_train", "check_dict_unchanged", "check_dont_overwrite_parameters", "check_estimator_cloneable",
    "check_estimators_overwrite_params", "check_estimators_pickle", "check_estimators_unfitted", "check_fit_idempotent",
    "check_fit_score_takes_y", "check_methods_sample_order_invariance", "check_methods_subset_invariance",
    "check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_pipeline_consistency",
    "check_requires_y_none", "check_set_params", "check_supervised_y_2d", "check_supervised_y_no_nan",
}  # fmt: skip


def test_scikit_learns_checks_pass(encoder: str) -> None:
    OnNumbers.fits = 0
    model = OnNumbers(backbone=encoder, epochs=1, batch_size=64, precision="fp32", validation_fraction=None)
    results = check_estimator(model, on_skip=None, on_fail=None)
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] not in ("passed", "skipped")}
    assert failed == {}
    assert {one["check_name"] for one in results if one["status"] == "skipped"} <= set(LEFT_OUT)
    passed = [one["check_name"] for one in results if one["status"] == "passed"]
    assert set(passed) >= MUST_PASS
    assert len(passed) >= 45
    assert OnNumbers.fits >= 60


def test_its_tags_say_text(news: NewsClassifier) -> None:
    tags = get_tags(news)
    assert tags.estimator_type == "classifier"
    assert tags.target_tags.required
    assert (tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array) == (True, True, False)

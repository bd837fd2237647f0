"""The scikit-learn estimator: the same run as the command line, what it learns, and what it leaves behind."""

import inspect
import json
import pickle
import signal
import tempfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from estimator_parts import LABELS, TEXTS
from estimator_parts import encoder as encoder  # a fixture
from estimator_parts import fitted as fitted  # a fixture
from estimator_parts import module_patches as module_patches  # a fixture
from estimator_parts import news as news  # a fixture
from sklearn.model_selection import GridSearchCV

from newslora import Classifier, NewsClassifier, explain
from newslora.config import load_recipe, setting_fields
from newslora.errors import SettingsError
from newslora.estimator import SETTINGS, PackedAdapter, _Printing
from newslora.runfolder import RunFolder

# --- one path with the command line ---------------------------------------------------------------------------------


def test_the_command_line_trains_the_same_adapter(
    news: NewsClassifier,
    encoder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from newslora.cli.app import main
    from newslora.evaluation.evaluate import evaluate_articles

    monkeypatch.setattr("newslora.pipeline.evaluate_articles", evaluate_articles)  # the command tells of the metrics
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
        "backbone": encoder, "rank": 2, "alpha": 3.5, "dropout": 0.25, "targets": "all-linear", "max_length": 32,
        "epochs": 1, "batch_size": 20, "learning_rate": 3e-3, "warmup_steps": 1, "weight_decay": 0.125, "precision": "fp32",
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


def test_a_balanced_class_weight_is_the_recipes_own_setting(news: NewsClassifier, tmp_path: Path) -> None:
    rare = TEXTS[:24] + [text for text, label in zip(TEXTS[24:], LABELS[24:], strict=True) if label == "World"]
    labels = LABELS[:24] + ["World"] * 8
    balances = {}
    for weight in (None, "balanced"):
        news.set_params(class_weight=weight, epochs=1, runs_folder=tmp_path, validation_fraction=None).fit(rare, labels)
        run = RunFolder.open(Path(news.run_))
        balances[weight] = run.recipe().train.class_balance, run.manifest()["training"]["objective"]["weights"]
    assert balances[None] == ("none", None)
    assert balances["balanced"] == ("weights", {"Sports": pytest.approx(32 / 24), "World": pytest.approx(32 / 40)})
    focal = load_recipe("quickstart", {"train.class_balance": "focal"})
    news.set_params(recipe=focal, class_weight=None).fit(rare, labels)
    assert RunFolder.open(Path(news.run_)).recipe().train.class_balance == "focal"


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


def test_a_fitted_estimator_is_no_run_but_tells_what_of_it_is(fitted: NewsClassifier) -> None:
    with pytest.raises(SettingsError, match=r"not by NewsClassifier: .*adapter_\.classifier\(\) is a Classifier"):
        Classifier.load(fitted)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"The texts are ndarray of shape \(40, 1\), not str"):
        fitted.adapter_.classifier()(np.array(TEXTS)[:, None])


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

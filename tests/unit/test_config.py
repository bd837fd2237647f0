"""Settings: the defaults are the reference recipe, bad values become sentences, and changes are laid over recipes."""

import errno
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from newslora import stock_names
from newslora.config import Recipe, bundled_recipes, data_changes, load_recipe, make_recipe, setting_fields
from newslora.errors import NewsloraError, SettingsError, near
from newslora.serving.settings import ServeSettings, serve_settings

# section 1 of the design: what the seed report used; what it does not state is the stock Trainer's own default
REFERENCE = {
    "name": "seed",
    "description": "",
    "data.source": "fancyzhx/ag_news",
    "data.validation": None,
    "data.test": None,
    "data.train_rows": None,
    "data.validation_rows": 640,
    "data.text_columns": None,
    "data.label_column": None,
    "data.label_names": None,
    "data.require_all_names": False,
    "data.multi_label": False,
    "data.label_separator": ";",
    "data.header": None,
    "data.max_quarantine_share": 0.01,
    "data.max_length": 512,
    "data.long_texts": "cut",
    "data.window_overlap": 64,
    "data.workers": 4,
    "model.backbone": "roberta-base",
    "model.revision": None,
    "model.adapter": None,
    "model.hidden_dropout": None,
    "model.attention_dropout": None,
    "lora.rank": 4,
    "lora.alpha": 16.0,
    "lora.dropout": 0.1,
    "lora.targets": "query-value",
    "train.epochs": 5,
    "train.batch_size": 16,
    "train.accumulation_steps": 1,
    "train.group_by_length": None,
    "train.evaluation_batch_size": 16,
    "train.learning_rate": 2e-4,
    "train.schedule": "cosine",
    "train.warmup_steps": 500,
    "train.weight_decay": 0.01,
    "train.adam_beta1": 0.9,
    "train.adam_beta2": 0.999,
    "train.adam_epsilon": 1e-8,
    "train.max_gradient_norm": 1.0,
    "train.class_balance": "none",
    "train.focal_gamma": 2.0,
    "train.precision": "auto",
    "train.engine": "auto",
    "train.cuda_graphs": False,
    "train.gradient_checkpointing": False,
    "train.log_every_steps": 100,
    "train.save_every_steps": None,
    "train.best_metric": "accuracy",
    "train.early_stopping_epochs": None,
    "train.seed": 42,
    "evaluation.calibrate": True,
    "evaluation.tune_thresholds": True,
}


class Table:
    """Shown as pandas shows a frame: over many lines."""

    def __repr__(self) -> str:
        return "title  label\n" * 9


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_every_default_is_the_reference_value() -> None:
    recipe = Recipe()
    assert {key: value_of(recipe, key) for key, _ in setting_fields()} == REFERENCE


def test_the_reference_recipe_takes_37300_steps() -> None:
    recipe = Recipe()
    rows = 120_000 - recipe.data.validation_rows
    assert rows / recipe.train.batch_size * recipe.train.epochs == 37_300


def test_every_setting_has_a_one_line_description() -> None:
    described = {key: field.description for key, field in setting_fields()}
    assert len(described) == len(REFERENCE)
    assert all(text and "\n" not in text and text.endswith(".") for text in described.values())


@pytest.mark.parametrize(
    ("key", "offer"),
    [
        ("train.epoch", "'train.epochs'"),
        ("data.sorce", "'data.source'"),
        ("lora.dropuot", "'lora.dropout'"),
        ("seed", "'train.seed'"),
        ("rank", "'lora.rank'"),
        ("trian", "'train'"),
    ],
)
def test_an_unknown_setting_offers_the_near_one(key: str, offer: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"There is no setting '{key}'") as by_set:
        load_recipe("seed", {key: 1})
    assert offer in str(by_set.value)
    path = tmp_path / "recipe.toml"
    path.write_text(f"{key} = 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=f"There is no setting '{key}'") as by_file:
        load_recipe(path)
    assert offer in str(by_file.value)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("num_train_epochs", "Here it is called 'train.epochs'."),
        ("train.num_train_epochs", "Here it is called 'train.epochs'."),
        ("max_grad_norm", "Here it is called 'train.max_gradient_norm'."),
        ("train.lr", "Here it is called 'train.learning_rate'."),
        ("lora.r", "Here it is called 'lora.rank'."),
        ("lora_alpha", "Here it is called 'lora.alpha'."),
        ("bf16", "Write train.precision=bf16."),
        ("warmup_ratio", "train.warmup_steps takes the ratio times all optimiser steps"),
        ("lora.target_modules", "lora.targets takes query-value or all-linear"),
    ],
)
def test_a_name_of_the_trainers_or_pefts_is_told_for_what_it_is_called_here(
    key: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"{key} = 1\n", encoding="utf-8")
    for given, changes in (("seed", {key: 1}), (path, None)):
        with pytest.raises(SettingsError, match=f"There is no setting '{key}'") as caught:
            load_recipe(given, changes)
        assert told in str(caught.value)
        assert "Did you mean" not in str(caught.value)


def test_what_stock_names_lead_to_is_there() -> None:
    known = {key for key, _ in setting_fields()}
    sections = "|".join(sorted({key.partition(".")[0] for key in known if "." in key}))
    told = set(re.findall(rf"\b(?:{sections})\.\w+", " ".join(stock_names.OTHERWISE.values())))
    assert len(told) > 8
    assert set(stock_names.SAME.values()) | told <= known
    names = stock_names.SAME.keys() | stock_names.OTHERWISE.keys()
    assert not names & {key.rpartition(".")[2] for key in known}  # those are offered as they are
    assert not stock_names.SAME.keys() & stock_names.OTHERWISE.keys()


@pytest.mark.parametrize(("section", "own"), [("data", "data.source"), ("train", "train.epochs")])
def test_a_section_is_no_setting(section: str, own: str) -> None:
    with pytest.raises(
        SettingsError, match=f"^'{section}' is a section of settings. Name one of its own, such as '{own}'"
    ):
        load_recipe("seed", {section: {"epochs": 1}})


def test_a_section_alone_is_no_likeness() -> None:
    with pytest.raises(SettingsError, match=r"no setting 'train\.lx'") as caught:
        load_recipe("seed", {"train.lx": 1})
    assert "Did you mean" not in str(caught.value)


def test_a_name_like_no_setting_gets_no_offer() -> None:
    with pytest.raises(SettingsError, match="newslora settings") as caught:
        load_recipe("seed", {"zzzz": 1})
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("name", "a/b"),
        ("name", ".hidden"),
        ("data.source", ""),
        ("data.train_rows", 1),
        ("data.validation_rows", 0),
        ("data.max_quarantine_share", 1.01),
        ("data.max_quarantine_share", -0.01),
        ("data.max_length", 7),
        ("data.workers", -1),
        ("data.workers", 65),
        ("data.text_columns", [""]),
        ("lora.rank", 0),
        ("lora.rank", 1025),
        ("lora.alpha", 0),
        ("lora.alpha", 1e308),
        ("lora.dropout", 1),
        ("lora.dropout", -0.1),
        ("lora.targets", "all"),
        ("train.epochs", 0),
        ("train.epochs", 2.5),
        ("train.batch_size", 0),
        ("train.accumulation_steps", 0),
        ("train.evaluation_batch_size", 0),
        ("train.learning_rate", 0),
        ("train.learning_rate", float("nan")),
        ("train.learning_rate", float("inf")),
        ("train.schedule", "cosin"),
        ("train.warmup_steps", -1),
        ("train.weight_decay", -1),
        ("train.adam_beta1", 1),
        ("train.adam_beta2", 1),
        ("train.adam_epsilon", 0),
        ("train.max_gradient_norm", -1),
        ("train.precision", "fp8"),
        ("train.log_every_steps", 0),
        ("train.save_every_steps", 0),
        ("train.best_metric", "f1"),
        ("train.early_stopping_epochs", 0),
        ("train.seed", -1),
        ("train.seed", 2**32),
    ],
)
def test_a_value_outside_its_range_is_named_with_its_setting(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        load_recipe("seed", {key: value})
    assert str(caught.value).startswith(f"{key}")
    assert repr(value if not isinstance(value, list) else value[0]) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"), [(Table(), "is a Table: "), ("x" * 9_000, "is 'xxx"), ([1] * 9_000, "is [1, 1,")]
)
def test_a_refused_value_is_shown_in_a_line(value: Any, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_recipe({"train": {"epochs": value}})
    message = str(caught.value)
    assert told in message
    assert len(message) < 400
    assert "\n" not in message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_recipe("seed", {"lora.rank": 0, "train.epochs": 0})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.workers", 0), ("data.workers", 64), ("lora.dropout", 0), ("train.seed", 2**32 - 1), ("data.train_rows", 2)],
)
def test_the_ends_of_a_range_are_inside(key: str, value: Any) -> None:
    assert value_of(load_recipe("seed", {key: value}), key) == value


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.epochs = 3  # type: ignore[misc]


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("data = 3\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="data is 3"):
        load_recipe(path)
    with pytest.raises(SettingsError, match=r"table \[data\]"):
        load_recipe(path, {"data.source": "corpus"})


def test_a_test_on_the_training_rows_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"data\.test is 'a\.csv'"):
        make_recipe({"data": {"source": "a.csv", "test": "a.csv"}})
    with pytest.raises(SettingsError, match=r"data\.test is 'b\.csv'"):
        make_recipe({"data": {"source": "a.csv", "validation": "b.csv", "test": "b.csv"}})
    assert make_recipe({"data": {"source": "a.csv", "validation": "b.csv", "test": "c.csv"}}).data.test == "c.csv"


def test_bundled_recipes_load_and_keep_their_names() -> None:
    names = bundled_recipes()
    assert {"seed", "quickstart"} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("tickets.toml", "tickets"),
        ("our tickets (new).toml", "our-tickets-new-"),
        ("_a.b.toml", "a.b"),
        ("新闻.toml", "recipe"),
    ],
)
def test_a_recipe_file_without_a_name_goes_by_its_own(file: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text("[train]\nepochs = 1\n", encoding="utf-8")
    assert load_recipe(path).name == expected
    path.write_text('name = "mine"\n', encoding="utf-8")
    assert load_recipe(path).name == "mine"
    assert load_recipe(path, {"name": "other"}).name == "other"


def test_the_seed_recipe_changes_no_default() -> None:
    recipe = load_recipe("seed")
    changed = {key for key, _ in setting_fields() if value_of(recipe, key) != REFERENCE[key]}
    assert changed == {"description", "data.label_names", "data.require_all_names"}
    assert recipe.data.label_names == ("World", "Sports", "Business", "Sci/Tech")


@pytest.mark.parametrize("name", bundled_recipes())
def test_label_names_of_ones_own_need_not_all_occur(name: str) -> None:
    assert load_recipe(name).data.require_all_names
    assert load_recipe(name, {"data.source": "news.csv"}).data.require_all_names
    assert not load_recipe(name, {"data.label_names": ["a", "b"]}).data.require_all_names
    asked = {"data.require_all_names": True, "data.label_names": ["a", "b"]}
    assert load_recipe(name, asked).data.require_all_names


def test_changes_are_laid_over_and_none_restores_the_default() -> None:
    assert load_recipe("quickstart").train.epochs == 4
    assert load_recipe("quickstart", {"train.epochs": 9}).train.epochs == 9
    assert load_recipe("quickstart", {"train.epochs": None}).train.epochs == REFERENCE["train.epochs"]
    assert load_recipe("seed", {"name": "mine"}).name == "mine"


def test_changes_are_laid_over_a_recipe_in_hand_too() -> None:
    own = load_recipe("quickstart", {"train.epochs": 9, "data.text_columns": ["a", "b"]})
    assert load_recipe(own) == own
    changed = load_recipe(own, {"train.batch_size": 5, "data.label_column": "c"})
    assert (changed.train.epochs, changed.train.batch_size) == (9, 5)
    assert (changed.data.text_columns, changed.data.label_column) == (("a", "b"), "c")
    with pytest.raises(SettingsError, match=r"train\.epochs is 0"):
        load_recipe(own, {"train.epochs": 0})


def test_changes_to_reading_have_short_names_and_no_others() -> None:
    full = {"data.text_columns": ["a"], "data.label_column": "b"}
    assert data_changes({"text_columns": ["a"], "data.label_column": "b"}) == full
    assert data_changes(None) == {}
    with pytest.raises(
        SettingsError, match=r"trained run cannot change 'train\.epochs'; only settings of the section data"
    ):
        data_changes({"train.epochs": 3})


def test_a_path_is_a_source(tmp_path: Path) -> None:
    assert load_recipe("seed", {"data.source": tmp_path / "a.csv"}).data.source == str(tmp_path / "a.csv")


def test_a_recipe_that_does_not_exist_offers_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(SettingsError, match="There is no recipe"):
        load_recipe(tmp_path)
    for other in (None, {"train": {"epochs": 1}}):
        with pytest.raises(SettingsError, match=f"not {type(other).__name__}. Settings go beside it"):
            load_recipe(other)  # type: ignore[arg-type]


def test_a_recipe_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recipe.toml"
    path.touch()
    read = Path.read_text

    def forbidden(self: Path, *given: Any, **named: Any) -> str:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(self, *given, **named)

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(SettingsError, match=r"recipe\.toml cannot be read: Permission denied"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["queue_rows", "rate_rows"])
def test_a_server_must_be_able_to_take_what_a_request_may_hold(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is 1, less than one request may hold"):
        ServeSettings(**{name: 1})
    with pytest.raises(
        SettingsError, match=rf"^{name} is 60, .*max_texts 50, stream_rows 64\): raise it, or lower those\.$"
    ):
        serve_settings({name: 60, "max_texts": 50})
    assert getattr(ServeSettings(**{name: 64}, max_texts=50), name) == 64


def test_errors_are_value_errors_of_ours() -> None:
    assert issubclass(SettingsError, NewsloraError)
    assert issubclass(SettingsError, ValueError)


def test_no_word_is_offered_in_the_place_of_itself() -> None:
    """A name that is known may still be out of reach, as one of the hub without a network."""
    known = ("roberta-base", "roberta-large")
    assert near("robeta-base", known) == " Did you mean 'roberta-base' or 'roberta-large'?"
    assert near("Roberta-base", known) == " Did you mean 'roberta-base' or 'roberta-large'?"
    assert near("roberta-base", iter(known)) == ""

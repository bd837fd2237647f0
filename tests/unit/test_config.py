"""Settings: the defaults are the reference recipe, bad values become sentences, and TOML carries a recipe unchanged."""

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from newslora.config import (
    DataSettings,
    Recipe,
    bundled_recipes,
    data_changes,
    load_recipe,
    make_recipe,
    parse_assignment,
    setting_fields,
    to_toml,
)
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
    "model.hidden_dropout": None,
    "model.attention_dropout": None,
    "lora.rank": 4,
    "lora.alpha": 16.0,
    "lora.dropout": 0.1,
    "lora.targets": "query-value",
    "train.epochs": 5,
    "train.batch_size": 16,
    "train.accumulation_steps": 1,
    "train.group_by_length": False,
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


@pytest.mark.parametrize("content", [b"a = ", b"a = 1\na = 2\n", b"\xff\xfe"])
def test_a_recipe_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="is not valid TOML"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        (" train.epochs = 3 ", ("train.epochs", 3)),
        ("train.learning_rate=1e-3", ("train.learning_rate", 1e-3)),
        ("train.group_by_length=true", ("train.group_by_length", True)),
        ("data.source=my news.csv", ("data.source", "my news.csv")),
        ("data.source=a=b.csv", ("data.source", "a=b.csv")),
        ('data.source="quoted"', ("data.source", "quoted")),
        ('data.text_columns=["title", "body"]', ("data.text_columns", ["title", "body"])),
        ("data.text_columns=[title, my body]", ("data.text_columns", ["title", "my body"])),
        ("data.text_columns=[title]", ("data.text_columns", ["title"])),
        ("data.text_columns=title", ("data.text_columns", "title")),
        ('data.text_columns="title"', ("data.text_columns", "title")),
        ("data.text_columns=2", ("data.text_columns", "2")),
        ("data.text_columns=[2,3]", ("data.text_columns", ["2", "3"])),
        ("data.label_names=[]", ("data.label_names", [])),
        ('data.text_columns=["title", body]', ("data.text_columns", '["title", body]')),
        ("data.label_column=1", ("data.label_column", "1")),
        ("data.source=2024", ("data.source", "2024")),
        ("name=2026-01-31", ("name", "2026-01-31")),
        ("name=1e5", ("name", "1e5")),
        ("data.source=", ("data.source", "")),
        ("no.such=1", ("no.such", 1)),
    ],
)
def test_set_takes_toml_values_and_bare_words(text: str, expected: tuple[str, Any]) -> None:
    got = parse_assignment(text)
    assert got == expected
    assert type(got[1]) is type(expected[1])


def test_set_takes_the_kind_of_the_settings_that_are_meant() -> None:
    given = (
        "allowed_hosts=[a.org, b.org]",
        "cors_origins=[https://a.org]",
        "watch=2026",
        "host=1",
        "max_texts=3",
        "open=true",
    )
    settings = serve_settings(dict(parse_assignment(text, ServeSettings) for text in given))
    assert (settings.allowed_hosts, settings.cors_origins) == (("a.org", "b.org"), ("https://a.org",))
    assert (settings.watch, settings.host, settings.max_texts, settings.open) == (Path("2026"), "1", 3, True)
    assert parse_assignment("allowed_hosts=[a.org, b.org]") == ("allowed_hosts", "[a.org, b.org]")  # none of a recipe's


@pytest.mark.parametrize("name", ["queue_rows", "rate_rows"])
def test_a_server_must_be_able_to_take_what_a_request_may_hold(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is 1, less than one request may hold"):
        ServeSettings(**{name: 1})
    with pytest.raises(
        SettingsError, match=rf"^{name} is 60, .*max_texts 50, stream_rows 64\): raise it, or lower those\.$"
    ):
        serve_settings({name: 60, "max_texts": 50})
    assert getattr(ServeSettings(**{name: 64}, max_texts=50), name) == 64


@pytest.mark.parametrize("value", ["title", "[title]", '"title"', ["title"], ("title",)])
def test_one_text_column_needs_no_list(value: Any) -> None:
    key, parsed = parse_assignment(f"data.text_columns={value}") if isinstance(value, str) else (None, value)
    assert load_recipe("seed", {key or "data.text_columns": parsed}).data.text_columns == ("title",)


@pytest.mark.parametrize(("key", "value"), [("data.label_names", "World,Sports"), ("data.text_columns", 5)])
def test_names_in_no_list_are_refused_with_its_form(key: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        load_recipe("seed", {key: value})
    assert str(caught.value) == f'{key} is {value!r}: names are written as \'{key}=["one","other"]\'.'


@pytest.mark.parametrize("text", ["", "train.epochs", "=3", "  = 3"])
def test_set_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="not key=value"):
        parse_assignment(text)


def test_errors_are_value_errors_of_ours() -> None:
    assert issubclass(SettingsError, NewsloraError)
    assert issubclass(SettingsError, ValueError)


def test_toml_of_the_defaults_names_every_setting_once(tmp_path: Path) -> None:
    text = to_toml(Recipe())
    for key, field in setting_fields():
        name = key.rpartition(".")[2]
        assert sum(line.startswith((f"{name} = ", f"# {name} is unset")) for line in text.splitlines()) == 1, key
        assert f"# {field.description}" in text
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    assert load_recipe(path) == Recipe()


words = st.text(min_size=1)
word_lists = st.none() | st.lists(words, max_size=4).map(tuple)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
shares = st.floats(0, 1, exclude_max=True)
recipes = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
        "description": st.text(),
        "data": st.fixed_dictionaries(
            {
                "source": words,
                "validation": st.none() | words,
                "train_rows": st.none() | st.integers(2, 10**9),
                "text_columns": word_lists,
                "label_column": st.none() | st.text(),
                "label_names": word_lists,
                "header": st.none() | st.booleans(),
                "max_quarantine_share": shares,
            }
        ),
        "lora": st.fixed_dictionaries({"alpha": positive, "dropout": shares, "rank": st.integers(1, 1024)}),
        "train": st.fixed_dictionaries(
            {
                "learning_rate": positive,
                "adam_epsilon": positive,
                "group_by_length": st.booleans(),
                "seed": st.integers(0, 2**32 - 1),
                "precision": st.sampled_from(["auto", "fp32", "bf16", "fp16"]),
            }
        ),
    }
).map(make_recipe)


@given(recipe=recipes)
def test_any_recipe_comes_back_from_toml(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="\n")
    assert load_recipe(path) == recipe


def test_text_that_toml_must_escape_comes_back(tmp_path: Path) -> None:
    hard = 'a"b\\c\n\r\t\x00\x1f\x7f\u2028é🙂'
    recipe = Recipe(data=DataSettings(source=hard, label_names=(hard, "x")))
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="\n")
    assert load_recipe(path).data.source == hard
    assert load_recipe(path).data.label_names == (hard, "x")


def test_no_word_is_offered_in_the_place_of_itself() -> None:
    """A name that is known may still be out of reach, as one of the hub without a network."""
    known = ("roberta-base", "roberta-large")
    assert near("robeta-base", known) == " Did you mean 'roberta-base' or 'roberta-large'?"
    assert near("Roberta-base", known) == " Did you mean 'roberta-base' or 'roberta-large'?"
    assert near("roberta-base", iter(known)) == ""

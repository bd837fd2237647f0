"""Settings as text: key=value takes what was meant, and TOML carries a recipe unchanged."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newslora.config import DataSettings, Recipe, load_recipe, make_recipe, parse_assignment, setting_fields, to_toml
from newslora.errors import SettingsError
from newslora.serving.settings import ServeSettings, serve_settings


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
        "lora": st.fixed_dictionaries(
            {"alpha": st.floats(0, 1e6, exclude_min=True), "dropout": shares, "rank": st.integers(1, 1024)}
        ),
        "train": st.fixed_dictionaries(
            {
                "learning_rate": positive,
                "adam_epsilon": positive,
                "group_by_length": st.none() | st.booleans(),
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

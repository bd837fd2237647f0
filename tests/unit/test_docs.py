"""The documents say what the code does."""

import re
from pathlib import Path

import newslora
from newslora import errors
from newslora.config import Recipe, _toml_value, setting_fields, to_toml
from newslora.serving.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(newslora.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_file_tree_lists_every_module_and_nothing_else() -> None:
    tree = README.partition("## File tree")[2]
    listed = set(re.findall(r"^  ([\w/]+\.py) ", tree, re.MULTILINE))
    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert listed == {name for name in there if not name.endswith(("__init__.py", "__main__.py"))}


def test_the_recipe_table_names_settings_that_exist_with_their_defaults() -> None:
    table = README.partition("## The reference recipe")[2].partition("## A run folder")[0]
    recipe = Recipe()
    named = re.findall(r"`(data|model|lora|train)\.(\w+)(?: = ([^`]+))?`", table)
    assert len(named) > 25
    for section, name, value in named:
        assert name in type(getattr(recipe, section)).model_fields
        if value:
            default = getattr(getattr(recipe, section), name)
            assert value.strip('"') == str(default).lower() or float(value) == default, f"{section}.{name}"


def test_settings_page_is_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page.partition("```toml\n")[2].rpartition("```")[0] == to_toml(Recipe()).strip() + "\n"


def test_serving_page_lists_every_setting_of_the_server_and_every_code() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    listed = dict(
        re.findall(r"^\| `(\w+)` \| (?:unset|`[^|]*`) \| (.*) \|$", page.partition("## Settings")[2], re.MULTILINE)
    )
    assert listed == {name: field.description for name, field in ServeSettings.model_fields.items()}
    defaults = dict(re.findall(r"^\| `(\w+)` \| (?:unset|`(.*?)`) \|", page.partition("## Settings")[2], re.MULTILINE))
    for name, field in ServeSettings.model_fields.items():
        assert defaults[name] == ("" if field.default is None else _toml_value(field.default))
    codes = set()
    for path in (PACKAGE / "serving").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        codes |= set(re.findall(r"(?:Problem\(\s*\d{3},|code=|Error, \d{3},|_bad\(\d{3},|\d{3}: \()\s*\"(\w+)\"", text))
    table = page.partition("## Errors")[2].partition("## Keys")[0]
    assert len(codes) > 30
    assert codes - set(re.findall(r"`(\w+)`", table)) == set()


def test_every_setting_has_a_meaning() -> None:
    assert all(len(field.description or "") > 15 for _, field in setting_fields())


def test_exit_codes_are_documented() -> None:
    table = README.partition("## Exit codes")[2].partition("## File tree")[0]
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert {str(code) for code in codes - {1}} <= set(re.findall(r"^\| (\d+) ", table, re.MULTILINE))


def test_links_lead_to_files_that_are_there() -> None:
    links = 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s]+)\)|^\[[^]]+\]: (\S+)", text, re.MULTILINE):
            target = "".join(link).partition("#")[0]
            if target and ":" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"
                links += 1
        named = set(re.findall(r"\]\[([^]]+)\]", text))
        assert named == set(re.findall(r"^\[([^]]+)\]: ", text, re.MULTILINE)), path.name
    assert links > 50


def test_every_result_is_told_of_and_every_result_told_of_is_there() -> None:
    there = {path.name for path in (ROOT / "benchmarks" / "results").iterdir()}
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert set(re.findall(r"benchmarks/results/([\w.-]+\.json)", text)) == there

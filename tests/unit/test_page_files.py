"""The page's files by themselves: they are shipped, listed, look like the reports, and hold nothing a strict policy refuses."""

import fnmatch
import re
import tomllib
from pathlib import Path

import newslora

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(newslora.__file__).parent
PAGE = PACKAGE / "serving" / "page"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir())}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}


def test_every_file_is_shipped_and_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["newslora"]
    assert len(SCRIPTS) > 10
    assert [name for name in TEXTS if not any(fnmatch.fnmatch(f"serving/page/{name}", one) for one in patterns)] == []
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## File tree")[2]
    assert set(re.findall(r"^  serving/page/(\S+) ", tree, re.MULTILINE)) == set(TEXTS)


def test_no_inline_script_or_style_and_no_other_host() -> None:
    index = TEXTS["index.html"]
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", index) == []
    assert re.findall(r"<script(?![^>]* src=)", index) == []
    for name, text in TEXTS.items():
        hosts = re.findall(
            r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", re.sub(r"^\s*//.*|\s// .*", "", text, flags=re.MULTILINE)
        )
        assert [host for host in hosts if host != "http://www.w3.org/2000/svg"] == [], name


def test_texts_never_become_markup() -> None:
    risky = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function"
    assert {name: re.findall(risky, text) for name, text in SCRIPTS.items() if re.search(risky, text)} == {}


def test_every_module_is_there_and_used() -> None:
    imported = {found for text in SCRIPTS.values() for found in re.findall(r'from "\./(\S+)"', text)}
    assert imported | {"page.js"} == set(SCRIPTS)
    ids = set(re.findall(r'\bid="([\w-]+)"', TEXTS["index.html"]))
    wanted = {found for text in SCRIPTS.values() for found in re.findall(r'find\("([\w-]+)"\)', text)}
    assert len(wanted) > 30
    assert wanted <= ids


def test_the_colours_are_those_of_the_reports() -> None:
    theirs = "".join((PACKAGE / "report" / name).read_text(encoding="utf-8") for name in ("style.css", "marks.html"))
    screen = theirs.partition("@media print")[0] + theirs.partition("{% macro colours")[2]
    shared = set(re.findall(r"--(\w+): (#\w+)", screen))
    assert len(shared) > 25
    assert shared <= set(re.findall(r"--(\w+): (#\w+)", TEXTS["page.css"]))

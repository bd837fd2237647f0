"""Commands that documents and scripts give are there: each parses as it stands, with its words in capitals for files."""

import ast
import re
import shlex
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmark_parts import BENCHMARKS

from newslora.cli.app import app
from newslora.config import setting_fields
from newslora.serving.settings import ServeSettings

DOCUMENTS = [BENCHMARKS.parent / "README.md", *sorted((BENCHMARKS.parent / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPES = {"int": int, "float": float, "Path": Path}


def commands(text: str, program: str) -> list[list[str]]:
    """Those of a program between backticks, over line ends too, or in blocks, fenced or set in; what is optional is given."""
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    lines = [line.strip() for block in BLOCK.findall(text) for line in block.replace("\\\n", "").splitlines()]
    lines += re.findall(r"^ {4}(\S.*)", BLOCK.sub("", text), re.MULTILINE)
    found = [one for one in (*spans, *(line.rpartition("| ")[2] for line in lines)) if one.startswith(program)]
    return [shlex.split(re.sub(r"[][]|\s#.*", "", one)) for one in found]  # a word may hold a #


def parser_of(script: Path) -> ArgumentParser | None:
    """Its flags, read out of the source: to import them all would take a while, and some want what tests do not have."""
    parser, flags = ArgumentParser(exit_on_error=False, allow_abbrev=False), 0
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            how: dict[str, Any] = {}
            for keyword in node.keywords:
                if keyword.arg == "type":
                    how["type"] = TYPES[ast.unparse(keyword.value)]
                elif keyword.arg in ("nargs", "action", "required", "choices") and not isinstance(
                    keyword.value, ast.Name
                ):
                    how[keyword.arg] = ast.literal_eval(keyword.value)
            parser.add_argument(*map(ast.literal_eval, node.args), **how)
            flags += 1
    return parser if flags else None


def test_commands_that_run_benchmarks() -> None:
    told = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    for path in sorted(BENCHMARKS.glob("*.py")):
        told[path] = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    tried = set()
    for path, text in told.items():
        for _, script, *words in commands(text, "python benchmarks/"):
            parser = parser_of(BENCHMARKS.parent / script)
            if parser is None:
                continue  # a child of another script, or one of three words
            try:
                given, unknown = parser.parse_known_args(words)
            except Exception as error:
                raise AssertionError(f"{path.name}: {script} {shlex.join(words)}: {error}") from error
            assert unknown == [], f"{path.name}: {script} {shlex.join(words)}"
            for setting in getattr(given, "set", None) or []:
                assert setting.partition("=")[0] in ServeSettings.model_fields
            tried.add(script.removeprefix("benchmarks/"))
    runs = {path.name for path in BENCHMARKS.glob("*.py") if parser_of(path) is not None}
    assert tried == runs  # and each of them is told of somewhere


def test_commands_of_newslora() -> None:
    settings = {name for name, _ in setting_fields()}
    tried = 0
    for path in DOCUMENTS:
        for _, *words in commands(path.read_text(encoding="utf-8"), "newslora "):
            if len(words) < 2 or words in (["COMMAND", "--help"], ["keys", "add"]):
                continue  # a command is spoken of, not given
            try:
                app.parse_args(words, exit_on_error=False, print_error=False)
            except Exception as error:
                raise AssertionError(f"{path.name}: newslora {shlex.join(words)}: {error}") from error
            for flag, value in pairwise(words):
                assert flag != "--set" or value.partition("=")[0] in settings, f"{path.name}: {value}"
            tried += 1
    assert tried > 40

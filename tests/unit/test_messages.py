"""What is said to a caller fits Python too: it names things, and the option of the command line in brackets behind."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import newslora
from newslora.cli.app import main
from newslora.errors import SettingsError

PACKAGE = Path(newslora.__file__).parent
COMMANDS_ONLY = {"cli", "serving", "bench"}  # nobody calls these but the commands of their names
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FITS = re.compile(
    r"""
    \([^()]*--[^()]*\)      # (--output), (--data FILE)
    | `[^`]*`               # `newslora train --resume RUN`: a whole command
    | newslora\ \w+\ --\w+
    | --set\ ['"]?\w+[.]\w+ # names the setting, which Python knows by that name
    | --set\ ['"]?\{\}
    | --\w+\ ([\w-]+\ )?\(\w+=  # --replace (replace=True)
    | pip\ install\ --\S+
    | ^--\w+$              # an argument to another program
    """,
    re.VERBOSE,
)


def texts(tree: ast.Module) -> Iterator[str]:
    """Strings of a module without docstrings; {} stands for what an f-string fills in."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | documented:
            yield node.value


def misfits(text: str) -> list[str]:
    return OPTION.findall(FITS.sub("", text))


def test_the_look_finds_what_it_is_for() -> None:
    assert misfits("Give more with --data FILE, or export --to onnx.") == ["--data", "--to"]
    assert misfits("Give more (--data FILE), or go on with `newslora train --resume {}`: --set train.seed=2.") == []


def test_messages_of_what_python_calls_name_options_in_brackets_only() -> None:
    found, seen = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0] in COMMANDS_ONLY:
            continue
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            seen += len(OPTION.findall(text))
            found += [f"{name}: {option} in {text!r:.90}" for option in misfits(text)]
    assert seen > 40  # the look saw the messages
    assert found == []


def test_refused_arguments_are_called_what_both_call_them(planted: Path) -> None:
    with pytest.raises(SettingsError, match=r"^The kind of export \(--to\) is 'tflite'\. Allowed: merged, "):
        newslora.export(planted, "tflite")
    with pytest.raises(SettingsError, match=r"^The way of int8 \(--int8\) is 'fast'\. Allowed: "):
        newslora.export(planted, "onnx-int8", int8="fast")
    with pytest.raises(SettingsError, match=r"^The number of rows \(--rows\) is 0\."):
        newslora.export(planted, rows=0)


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_help_says_what_standard_input_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "'-' for one text a line on standard input" in told


def test_lines_of_help_end_where_the_terminal_ends_them(capsys: pytest.CaptureFixture[str]) -> None:
    joined, early = 0, []
    for command in ("serve", "predict", "export", "train"):
        assert main([command, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        columns = max(map(len, lines))  # a box is as wide as the terminal
        for line, following in itertools.pairwise(lines):
            words, more = (text.strip("│").rstrip() for text in (line, following))
            boxed = line.startswith("│")
            if re.match(r" {8,}\S", more) if boxed else words and more and line[0].isalpha():
                joined += 1
                room = columns - (3 if boxed else 0) - len(words)
                if 1 + len(more.split()[0]) <= room:
                    early.append(line)
    assert joined > 30
    assert early == []

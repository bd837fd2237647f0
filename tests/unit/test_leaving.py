"""A command's process ends once all is done that is to be done at its end, and not a moment later."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import newslora

PROGRAM = """
import atexit, sys, threading, time, weakref
from newslora.cli import app

class Held:
    def __del__(self):
        print("looked at once more", flush=True)

held = Held()

def main():
    atexit.register(print, "registered")
    weakref.finalize(held, print, "finalised")
    threading.Thread(target=lambda: (time.sleep(0.3), print("waited for"))).start()
    sys.stdout.write("said last; ")
    {ending}

app.main = main
{call}
"""
DONE = ["finalised", "registered", "said last; waited for"]


def ended(ending: str, call: str = "app.run()") -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ending, call=call)], capture_output=True, text=True, check=False
    )
    return done.returncode, sorted(done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize(
    ("ending", "code"), [("return 0", 0), ("return 13", 13), ("raise SystemExit(7)", 7), ("raise SystemExit('no')", 1)]
)
def test_all_is_done_and_nothing_is_looked_at_once_more(ending: str, code: int) -> None:
    assert ended(ending)[:2] == (code, DONE)


def test_an_error_nobody_expected_is_told() -> None:
    code, said, complained = ended("raise RuntimeError('unexpected')")
    assert (code, said) == (1, DONE)
    assert "RuntimeError: unexpected" in complained


def test_the_interpreters_own_end_would_look() -> None:
    code, said, _ = ended("return 0", "sys.exit(app.main())")
    assert (code, said) == (0, sorted([*DONE, "looked at once more"]))


def test_the_command_and_the_module_end_so() -> None:
    (command,) = entry_points(group="console_scripts", name="newslora")
    assert command.value == "newslora.cli.app:run"
    assert "    run()" in (Path(newslora.__file__).parent / "__main__.py").read_text()

"""Standard streams that were closed, or whose encoding lacks a letter: no command ends because of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_parts import SOURCES

PROGRAM = """
import os, sys
from newslora.cli import app

def main():
    print("said", flush=True)
    sys.stdout.isatty(), sys.stderr.isatty()
    with open({file!r}, "w") as file:
        os.write(1, b"printed by a library")
        os.write(2, b"and complained of")
        file.write(f"{{file.fileno() > 2}} {{sys.stdin is None}}")
    return 0

app.main = main
app.run()
"""


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_file_never_takes_the_number_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    done = shell(f'exec "$0" -c "$1" {closed}', PROGRAM.format(file=str(file)))
    assert done.returncode == 0
    assert file.read_text() == f"True {'<&-' in closed}"
    assert done.stdout == (b"" if " >&-" in f" {closed}" else b"said\nprinted by a library")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["predict", "predict into a file", "explain"])
def test_a_closed_input_is_told(command: str, planted: Path, tmp_path: Path) -> None:
    arguments = {
        "predict": f"predict {planted} -",
        "predict into a file": f"predict {planted} - -o {tmp_path / 'out.csv'}",
        "explain": f"explain {planted} -",
    }[command]
    done = shell(f'exec "$0" -m newslora {arguments} <&-')
    assert done.returncode == 3
    assert done.stderr.startswith(b"newslora: Standard input is closed")


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
TEXT = "treaty über “日本” 🙂"


@pytest.mark.parametrize("options", ["", "--probabilities"])
def test_predictions_are_utf8_whatever_the_locale(options: str, planted: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(TEXT + "\n", encoding="utf-8")
    done = shell(f'exec "$0" -m newslora predict {planted} - {options} < {tmp_path / "in.txt"}', **ASCII)
    assert done.returncode == 0
    assert TEXT in done.stdout.decode("utf-8")


def test_a_table_shows_letters_that_the_locale_lacks_as_escapes() -> None:
    program = "from newslora.cli import app; app._run = lambda arguments: print('\\u65e5') or 0; app.run()"
    done = shell('exec "$0" -c "$1"', program, **ASCII)
    assert (done.returncode, done.stdout) == (0, b"\\u65e5\n")


def shell(line: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """What a shell makes of a line, whose $0 is Python."""
    held = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        ["sh", "-c", line, sys.executable, *arguments], capture_output=True, env=held, check=False, timeout=300
    )

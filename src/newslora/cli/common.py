"""What the commands share: flags, consoles, tables and a counter."""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

from cyclopts import Parameter

from newslora.cli.output import Remarks
from newslora.data.lines import visible
from newslora.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SetFlags = Annotated[list[str] | None, Parameter(name="--set", negative="")]  # key=value, may be repeated
OutputFlag = Annotated[Path | None, Parameter(name=["--output", "-o"])]
DeviceFlag = Annotated[
    str | None, Parameter(help="Device: 'cpu', 'cuda', 'cuda:1', ...; by default the first GPU, else the CPU.")
]


def data_changes(settings: list[str] | None) -> dict[str, Any]:
    """--set of a command that reads rows but does not train."""
    from newslora import config

    return config.data_changes(dict(config.parse_assignment(text) for text in settings or []))


def standard_input() -> TextIO:
    """The stream.

    Raises:
        DataError: it was closed (`<&-`).
    """
    if sys.stdin is None:
        raise DataError("Standard input is closed: there is no text to read. Pipe some in, one a line, or name a file.")
    return sys.stdin


def utf8_output() -> None:
    """Let standard output be UTF-8, as files with predictions are, whatever the locale: JSON cannot be escaped by halves."""
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(encoding="utf-8")


def results() -> "Console":
    """Where results go: standard output."""
    return _console(None)


def remarks() -> "Console":
    """Where progress and remarks go: standard error, out of the results' way."""
    return _console(cast("TextIO", Remarks(sys.stderr)))


def _console(file: TextIO | None) -> "Console":
    """Shows text as it stands, for most of it is data: neither brackets, numbers, colons nor escapes mean anything in it."""
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, *arguments: Any, **options: Any) -> Text:
            return super().render_str(visible(text), *arguments, **options)

    return Plain(file=file, markup=False, highlight=False, emoji=False)


def new_table(title: str, *headings: str, words: Collection[str] = ("",), tight: bool = False) -> "Table":
    """An empty table.

    Args:
        title: above it, at the left.
        headings: of its columns.
        words: headings of columns that hold words, set at the left; numbers stand at the right.
        tight: without space beside its lines, so that more columns fit 80 characters.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left", padding=(0, 0) if tight else (0, 1))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right")
    return table


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A function that counts rows on screen while inside."""
    from rich.progress import Progress, TextColumn

    with Progress(TextColumn("{task.completed:,.0f} " + what), console=remarks(), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows: bar.advance(task, rows)

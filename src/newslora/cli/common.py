"""What the commands share: flags, consoles, a counter, and results on screen."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

SetFlags = Annotated[list[str] | None, Parameter(name="--set", negative="")]  # key=value, may be repeated
OutputFlag = Annotated[Path | None, Parameter(name=["--output", "-o"])]


def data_changes(settings: list[str] | None) -> dict[str, Any]:
    """--set of a command that reads rows but does not train."""
    from newslora.config import parse_assignment
    from newslora.errors import SettingsError

    changes = dict(parse_assignment(text) for text in settings or [])
    if odd := [key for key in changes if not key.startswith("data.")]:
        raise SettingsError(f"A trained run cannot change '{odd[0]}'; only settings of the section data go here.")
    return changes


def results() -> "Console":
    """Where results go: standard output."""
    from rich.console import Console

    return Console()


def remarks() -> "Console":
    """Where progress and remarks go: standard error, out of the results' way."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A function that counts rows on screen while inside."""
    from rich.progress import Progress, TextColumn

    with Progress(TextColumn("{task.completed:,.0f} " + what), console=remarks(), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows: bar.advance(task, rows)


def show(result: dict[str, Any]) -> None:
    """An evaluation: its tables, and what is to be said of them."""
    from newslora.cli.evaluation_tables import evaluation_tables, remarks_on

    console = results()
    for table in evaluation_tables(result):
        console.print(table)
    for remark in remarks_on(result):
        console.print(remark, highlight=False, markup=False)

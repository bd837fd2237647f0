"""`newslora keys` and `newslora feedback`: what a server's operator does beside it."""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from newslora.cli.common import remarks, results

KEYS_FILE = Path("newslora-keys.json")

keys = App(
    name="keys", help="Make, list and revoke the API keys of `newslora serve --keys FILE`.", help_format="plaintext"
)
feedback = App(name="feedback", help="Corrections that a server has collected.", help_format="plaintext")


@keys.command
def add(
    name: str,
    *,
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    days: float | None = None,
    file: Path = KEYS_FILE,
) -> None:
    """Make a key and print it, once: the file keeps its hash only. A running server takes it at once.

    Parameters
    ----------
    name
        Who holds the key; stands in logs and beside corrections.
    scope
        What it may do, with commas between or given several times: classify, feedback, admin, metrics. The first two unless
        told.
    days
        Days until it ends; without it, it does not.
    file
        The key file, readable by its owner alone.
    """
    from newslora.serving.keys import add_key

    named = ["classify", "feedback"] if scope is None else [part.strip() for part in ",".join(scope).split(",")]
    key = add_key(file, name, [part for part in named if part], days)
    print(key)
    remarks().print(f"Kept in {file} as a hash: this is the only time the key is shown.")


@keys.command
def revoke(name: str, *, file: Path = KEYS_FILE) -> None:
    """Make a key useless; a running server refuses it from the next request on.

    Parameters
    ----------
    name
        The key's name.
    file
        The key file.
    """
    from newslora.serving.keys import revoke_key

    revoke_key(file, name)
    remarks().print(f"Revoked '{name}' in {file}.")


@keys.command(name="list")
def list_keys(*, file: Path = KEYS_FILE) -> None:
    """Names, scopes and ends of the keys in a file.

    Parameters
    ----------
    file
        The key file.
    """
    from rich.table import Table

    from newslora.serving.keys import read_keys

    table = Table("name", "scopes", "made", "ends")
    now = time.time()
    for key in read_keys(file):
        ends = "" if key.expires is None else _day(key.expires) + (" (over)" if key.expired(now) else "")
        table.add_row(key.name, ", ".join(key.scopes), _day(key.created), ends)
    results().print(table)


@feedback.command
def export(
    address: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    label_separator: str | None = None,
) -> None:
    """Write corrections as rows to train on, the newest of each text: to read them over, or to join them with other rows.

    Parameters
    ----------
    address
        The server's --feedback; an adapter's own are named after #, as in sqlite:///corrections.db#news.
    output
        File to write (.jsonl or .csv), with the columns text and label.
    label_separator
        What stands between several labels of a row, in CSV; by default what data.label_separator is by default.
    """
    from newslora.serving.feedback import export_corrections

    count = export_corrections(address, output, label_separator)
    remarks().print(f"{count:,} corrections in {output}")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))

"""`newslora keys` and `newslora feedback`: what a server's operator does beside it."""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from newslora.cli.common import remarks, results

KEYS_FILE = Path("newslora-keys.json")

keys = App(
    name="keys", help="Create, list and revoke the API keys of `newslora serve --keys FILE`.", help_format="plaintext"
)
feedback = App(name="feedback", help="Export the corrections that a server has collected.", help_format="plaintext")


@keys.command
def add(
    name: str,
    *,
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    days: float | None = None,
    file: Path = KEYS_FILE,
) -> None:
    """Create a key and print it, once: the file stores only its hash. A running server accepts it at once.

    Parameters
    ----------
    name
        Who holds the key; the name appears in logs and with corrections.
    scope
        What it may do: classify, feedback, admin, metrics, separated by commas or given several times. By default classify
        and feedback.
    days
        Days until the key expires; by default never.
    file
        The key file; only its owner can read it.
    """
    from newslora.serving.keys import add_key

    named = ["classify", "feedback"] if scope is None else [part.strip() for part in ",".join(scope).split(",")]
    key = add_key(file, name, [part for part in named if part], days)
    print(key)
    remarks().print(f"Kept in {file} as a hash: this is the only time the key is shown.")


@keys.command
def revoke(name: str, *, file: Path = KEYS_FILE) -> None:
    """Revoke a key; a running server refuses it from the next request on.

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
    """List names, scopes and expiry dates of the keys in a file.

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
    """Write corrections as training rows, the newest of each text, to review them or to join them with other rows.

    Parameters
    ----------
    address
        The server's --feedback; # selects one adapter's corrections, as in sqlite:///corrections.db#news.
    output
        File to write (.jsonl or .csv), with the columns text and label.
    label_separator
        Separator between several labels of a row in CSV; by default the default of data.label_separator.
    """
    from newslora.serving.feedback import export_corrections

    count = export_corrections(address, output, label_separator)
    remarks().print(f"{count:,} corrections in {output}")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))

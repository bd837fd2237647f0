"""Which columns hold the text and the label, found by name or by shape."""

import json
import shlex
from collections.abc import Sequence

from newslora.errors import DataError, listed, near, shortened

TITLES = ("title", "headline")
BODIES = ("description", "text", "body", "content", "summary", "abstract", "article", "sentence", "news", "review")
LABELS = ("label", "labels", "class", "class index", "category", "section", "topic", "target", "class name")
ERRORS_NAME_AT_MOST = 20
CHARACTERS_SHOWN = 40  # of a column's name: a row taken for a header has whole articles in their place
NO_HEADER = "Where a CSV file's first line is a row already, --set data.header=false."


def is_header(cells: Sequence[str]) -> bool:
    """Whether a CSV file's first line names columns: it does, unless it is a row as AG News has them.

    That is class, title and description, the class a number. Three numbers are names again: pandas numbers columns so.
    """
    if any(_folded(cell) in (*TITLES, *BODIES, *LABELS) for cell in cells):
        return True
    numbers = [_is_number(cell) for cell in cells]
    return len(cells) != 3 or not numbers[0] or all(numbers)


def find_text_columns(
    columns: Sequence[str],
    wanted: Sequence[str] | None,
    has_header: bool,
    label: str | None,
    where: str,
    usual: Sequence[str] = (),
) -> tuple[str, ...]:
    """The columns to join into the text: the wanted ones, else the usual where all are there, else those found by name.

    Args:
        columns: all columns, in file order.
        wanted: the user's choice, if any.
        has_header: whether the columns carry names rather than numbers.
        label: the label column, which is never text.
        where: the source, for the error.
        usual: what a classifier was trained on.

    Raises:
        DataError: a wanted column is missing, some of the usual ones are that no name would find, or none can be found.
    """
    if wanted:
        for name in wanted:
            _require(name, columns, "data.text_columns", where)
        if label in wanted:
            raise DataError(
                f"data.text_columns names '{label}', the label column of {where}: the text would give it away."
            )
        return tuple(wanted)
    if usual and label not in usual and set(usual) <= set(columns):
        return tuple(usual)
    if not has_header:
        return tuple(name for name in columns if name != label)
    _refuse_parts(usual, columns, where)
    title, body = _first(columns, TITLES), _first(columns, BODIES)
    found = tuple(name for name in (title, body) if name is not None and name != label)
    if not found:
        _refuse_none(columns, where)
        first = next((name for name in columns if name != label), "COLUMN")
        raise DataError(
            f"No text column found in {where}: its columns are {_listed(columns)}{_trained(usual)}. Name one or more, for "
            f"example {_setting([first])}. {NO_HEADER}"
        )
    return found


def other_columns(found: Sequence[str], trained: Sequence[str]) -> str | None:
    """A sentence where text is taken from other columns than those of the training; None where it is not."""
    if not _named(trained) or tuple(found) == tuple(trained):
        return None
    return f"The text is taken from {' + '.join(found)}; the classifier was trained on {' + '.join(trained)}."


def _refuse_parts(usual: Sequence[str], columns: Sequence[str], where: str) -> None:
    """A part of a classifier's own columns says that the rest was forgotten, not that others hold the text.

    Own are those that the user named in training and no name would find.

    Raises:
        DataError: some are there, and some are missing.
    """
    own = [name for name in usual if _folded(name) not in (*TITLES, *BODIES)] if _named(usual) else []
    there, missing = [name for name in own if name in columns], [name for name in own if name not in columns]
    if there and missing:
        raise DataError(
            f"{where} has no column {_listed(missing)}: its columns are {_listed(columns)}{_trained(usual)}. Add what is "
            f"missing, or take the text from what is there: {_setting([name for name in usual if name in columns])}."
        )


def _named(columns: Sequence[str]) -> bool:
    """Whether there are names among them; else they are of a file without a header, and mean nothing elsewhere."""
    return any(not name.isdecimal() for name in columns)


def _refuse_none(columns: Sequence[str], where: str) -> None:
    if not columns:
        raise DataError(
            f"{where} has no columns at all, and so no text. Make or copy it again, or name another source."
        )


def _trained(usual: Sequence[str]) -> str:
    return f"; training had the text in {_listed(usual)}" if _named(usual) else ""


def _setting(columns: Sequence[str]) -> str:
    shown = json.dumps([_shown(name) for name in columns], ensure_ascii=False)
    return f"--set {shlex.quote(f'data.text_columns={shown}')}"


def find_label_column(
    columns: Sequence[str], wanted: str | None, has_header: bool, first_rows: Sequence[Sequence[str]], where: str
) -> str:
    """The label column: the wanted one, else by name, else (no header) the one with the shortest cells.

    Raises:
        DataError: the wanted column is missing, or none can be found.
    """
    if wanted:
        return _require(wanted, columns, "data.label_column", where)
    if has_header:
        found = _first(columns, LABELS)
        if found is None:
            _refuse_none(columns, where)
            example = columns[-1]
            raise DataError(
                f"No label column found in {where}: its columns are {_listed(columns)}. Name it, for example "
                f"--set {shlex.quote(f'data.label_column={_shown(example)}')}; text columns are named with data.text_columns. "
                f"{NO_HEADER}"
            )
        return found
    if len(columns) < 2:
        raise DataError(f"{where} has one column; training needs a text and a label in each row.")
    cells = [[row[place] for row in first_rows if place < len(row)] for place in range(len(columns))]
    # a label is short and never empty; AG News' titles are now and then
    best = min(range(len(columns)), key=lambda place: (not all(cells[place]), sum(map(len, cells[place]))))
    return columns[best]


def _first(columns: Sequence[str], known: Sequence[str]) -> str | None:
    by_folded = {_folded(name): name for name in reversed(columns)}
    return next((by_folded[name] for name in known if name in by_folded), None)


def _folded(name: str) -> str:
    return name.strip().casefold().replace("_", " ")


def _is_number(cell: str) -> bool:
    return cell.strip().isascii() and cell.strip().isdecimal()


def _require(name: str, columns: Sequence[str], setting: str, where: str) -> str:
    if name not in columns:
        if all(map(_is_number, columns)):
            hint = " If its first line names the columns, --set data.header=true."
        elif _is_number(name):
            hint = f" Columns have numbers only where there is no header. {NO_HEADER}"
        else:
            several = setting == "data.text_columns" and "," in name
            hint = f' Several are written as \'{setting}=["title","text"]\'.' if several else near(name, columns)
        raise DataError(f"{setting} names '{name}', but {where} has {_listed(columns)}.{hint}")
    return name


def _listed(columns: Sequence[str]) -> str:
    return listed([f"'{_shown(name)}'" for name in columns], ERRORS_NAME_AT_MOST)


def _shown(name: str) -> str:
    # a terminal obeys control characters
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in shortened(name, CHARACTERS_SHOWN)
    )

"""What is given in Python, seen to be of the kind asked for before anything is begun; settings of recipes have types."""

import operator
import os
from pathlib import Path

from newslora.errors import SettingsError


def as_path(given: object, what: str) -> Path:
    """A place -> its path.

    Raises:
        SettingsError: neither text nor a path, or empty text, which would be the current folder.
    """
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given) or isinstance(os.fspath(given), bytes):
        raise SettingsError(f"{what} is {given!r:.60}, a {type(given).__name__}. Allowed: a path, as str or Path.")
    return Path(given)


def as_count(given: object, what: str, least: int = 1, most: int | None = None, why: str = "") -> int:
    """A whole number from `least` to `most`, both included; NumPy's are taken too.

    Raises:
        SettingsError: something else; it says `why` after what is allowed.
    """
    try:
        number = None if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise SettingsError(f"{what} is {given!r:.60}. Allowed: {allowed}{why}.")
    return number

"""What is about to be written, held against what is read: no output takes the place of its input."""

from collections.abc import Iterable
from pathlib import Path

from newslora.data.sources import parse_source, source_files
from newslora.errors import SettingsError


def refuse_overwriting(outputs: Iterable[Path], sources: Iterable[str]) -> None:
    """Stop, before anything is computed, where one of the files to be written is one that rows of the sources are read from.

    Raises:
        SettingsError: an output is a file of a source, by whatever name or link.
        DataError: a source that cannot be found.
    """
    standing = [path for path in outputs if path.exists()]
    if not standing:
        return
    for text in sources:
        for file in source_files(parse_source(text)):
            for path in standing:
                if path.samefile(file):
                    raise SettingsError(
                        f"The output '{path}' is the input: '{text}' is read from it. Name another place for one of the two."
                    )

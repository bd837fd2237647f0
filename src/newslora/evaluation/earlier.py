"""The rows that trained the adapter a run starts from, and the adapters before it: held rows among them are not new to it."""

import itertools
from collections.abc import Iterator
from typing import Any

from newslora.data.overlap import copied_rows
from newslora.data.splits import Splits
from newslora.data.texts import Texts
from newslora.errors import NewsloraError, RunError
from newslora.evaluation.own import own_rows
from newslora.model.start import Start, find_again
from newslora.runfolder import STARTED_FROM, RunFolder


def describe_start(start: Start, splits: Splits) -> dict[str, Any]:
    """What data.json says of the adapter (newslora.records.run.StartedFrom): the files that trained it and those before it,
    how many held rows stand in them, and the adapters whose rows could not be read again."""
    seen: list[Texts] = []
    unread: list[str] = []
    for name, run in _line(start):
        texts = None if run is None else _texts(run)
        if texts is None:
            unread.append(name)
        else:
            seen.append(texts)
    return {
        "adapter": start.name,
        "sha256": start.version,
        "trained_on": [] if start.run is None else sorted(start.run.trained_on()),
        "copies": {
            name: copied_rows(itertools.chain.from_iterable(seen), one.texts) for name, one in splits.held().items()
        },
        "unread": unread,
    }


def _line(start: Start) -> Iterator[tuple[str, RunFolder | None]]:
    """The adapter and its run, then those it started from in turn; a run that is not there ends the line."""
    name, run = start.name, start.run
    yield name, run
    while run is not None and (origin := run.data().get(STARTED_FROM)) is not None:
        try:
            name, run = origin["adapter"], find_again(origin["adapter"], origin["sha256"], run.trained_in()).run
        except RunError:
            name, run = origin["adapter"], None
        yield name, run


def _texts(run: RunFolder) -> Texts | None:
    """The texts that trained a run; None where they are not here or have changed."""
    try:
        return own_rows(run).train.texts
    except NewsloraError:
        return None

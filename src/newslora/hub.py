"""The hub's manners: whether it answers, and what its libraries' exceptions mean to a user."""

import contextlib
import errno
import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

HUB_WAIT = 5.0  # seconds the hub has to give any answer, before only what is on this disk is used
HUB_REMEMBERED = 60.0  # seconds that finding holds

_hub_found: tuple[float, bool] | None = None  # when the hub was last tried, and whether it answered


def hub_answers() -> bool:
    """Whether the hub gives any answer within HUB_WAIT seconds; found out at most once in HUB_REMEMBERED seconds.

    The hub libraries retry for half a minute a file on a refused connection, and far longer on a silent one, where the
    wait is per address of the host and the look-up of its name has no limit. Hence one limit here, over everything.
    """
    global _hub_found
    if _hub_found is None or time.monotonic() - _hub_found[0] > HUB_REMEMBERED:
        from huggingface_hub import constants, get_session

        answered = threading.Event()
        knock = functools.partial(_knock, get_session(), constants.ENDPOINT, answered)
        # a daemon, so that a name look-up that hangs does not keep the process alive
        asking = threading.Thread(target=knock, daemon=True)
        asking.start()
        asking.join(HUB_WAIT)
        _hub_found = (time.monotonic(), answered.is_set())
    return _hub_found[1]


def _knock(session: Any, address: str, answered: threading.Event) -> None:
    with contextlib.suppress(Exception):  # whatever it is, it is no answer
        if session.head(address, timeout=HUB_WAIT).status_code < 500:
            answered.set()


def hub_unreachable(error: BaseException) -> bool:
    """Whether this exception, or one behind it, says that the hub gave no answer: no network, offline mode, a failing hub.

    Told by what an exception is, not by its text, which quotes names the user chose.
    """
    for one in _behind(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None:
            return status in (408, 429) or status >= 500
        # the hub's HTTP library is httpx or httpx2, by version; both name the base of 'no answer' TransportError
        names = {kind.__name__ for kind in type(one).__mro__}
        if isinstance(one, (ConnectionError, TimeoutError)) or names & {"LocalEntryNotFoundError", "TransportError"}:
            return True
    return False


def disk_refusal(error: BaseException) -> str | None:
    """What to do when the hub's cache cannot be written, or None when that is not the matter."""
    from huggingface_hub.constants import HF_HOME

    refused = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    for one in _behind(error):
        if isinstance(one, OSError) and one.errno in refused:
            return f"{one.strerror} ({one.filename or HF_HOME}). Free it, or name a folder elsewhere in HF_HOME."
    return None


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it came from, latest first."""
    for _ in range(20):  # more than any library nests, and an end should one chain in a circle
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__

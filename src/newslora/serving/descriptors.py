"""File descriptors, one of which each connection takes: how many there may be, and whether all are used."""

import contextlib
import os
from typing import Any

RESERVE = 100  # for libraries, adapters, the database and the log
_WAY = "Raise the limit (`ulimit -n`, LimitNOFILE of systemd)"


def make_room(connections: int) -> str | None:
    """Let this process open as many files as so many connections take; a sentence where it may not.

    Shells allow 1,024 by default and let who asks have more.
    """
    try:
        import resource
    except ImportError:  # a system without such limits
        return None
    wanted = connections + RESERVE
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unbounded = resource.RLIM_INFINITY
    if allowed == unbounded or allowed >= wanted:
        return None
    raised = wanted if most == unbounded else min(wanted, most)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed >= wanted:
        return None
    return (
        f"This process may open {allowed:,} files, and {connections:,} connections take some {wanted:,}: it will cut "
        f"connections before it tells clients to wait. {_WAY}, or lower --set connections."
    )


class Watched:
    """Tells the log when no file can be opened any more, for connections are cut then without a word; and when it is over.

    Args:
        log: from `make_log`.
    """

    def __init__(self, log: Any) -> None:
        self._log, self.all_used = log, False

    def look(self) -> None:
        """Try to open one."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if not self.all_used:
                told = f"No file can be opened ({error.strerror or error}): new connections are cut. {_WAY}."
                self._log.error("files", message=told)
            self.all_used = True
        else:
            if self.all_used:
                self._log.info("files", message="Files can be opened again: connections are taken.")
            self.all_used = False

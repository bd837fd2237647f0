"""Stock modules that answer otherwise for the length of a call, to each thread with what that thread brought."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class StandIn:
    """Is in the place of stock modules while any thread is inside; what derives from it says how."""

    def __init__(self) -> None:
        self._inside = 0  # threads
        self._changing = threading.Lock()
        self._of_thread = threading.local()

    def _put(self) -> None:
        """Take the modules' place."""
        raise NotImplementedError

    def _take_back(self) -> None:
        """Give it back."""
        raise NotImplementedError

    @property
    def _brought(self) -> Any:
        """What the calling thread is inside with."""
        return self._of_thread.brought

    @contextlib.contextmanager
    def _standing_in(self, brought: Any) -> Iterator[None]:
        """A thread is inside once at a time."""
        with self._changing:
            if not self._inside:
                self._put()
            self._inside += 1
        self._of_thread.brought = brought
        try:
            yield
        finally:
            del self._of_thread.brought
            with self._changing:
                self._inside -= 1
                if not self._inside:
                    self._take_back()

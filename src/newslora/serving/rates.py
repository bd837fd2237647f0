"""How much one key may ask in a minute: requests and texts, in a moving window (the library `limits`)."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from newslora.errors import DrainingError, OverloadedError
from newslora.serving.problems import Problem
from newslora.serving.settings import ServeSettings

if TYPE_CHECKING:
    from limits import RateLimitItem

MINUTE = 60  # seconds
STEP = 1.0  # seconds that the clock goes back at once; less is how a clock is kept right
RATE_LIMITED = "rate_limited"  # the code of a refusal


class Rates:
    """The windows of all keys, in memory.

    Args:
        settings: `rate_requests` and `rate_rows`; 0 lets any number pass.
    """

    def __init__(self, settings: ServeSettings) -> None:
        from limits import RateLimitItemPerMinute

        self._begin()
        self._lock = threading.Lock()  # guards the reserved texts against what is counted of them
        self._reserved: Counter[str] = Counter()  # texts being answered, by key
        self._items = {
            what: RateLimitItemPerMinute(allowed, namespace=what)
            for what, allowed in (("requests", settings.rate_requests), ("texts", settings.rate_rows))
            if allowed
        }

    def _begin(self) -> None:
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._ahead = time.time() - time.monotonic()

    def _heed_the_clock(self) -> None:
        """Begin again where the clock was set back: the library's windows would only end once it has caught up."""
        ahead = time.time() - time.monotonic()
        if ahead < self._ahead - STEP:
            self._begin()
        self._ahead = ahead

    def request(self, key: str | None) -> None:
        """Count a request.

        Raises:
            Problem: 429 with the seconds to wait.
        """
        self._heed_the_clock()
        item = self._items.get("requests")
        if key is not None and item is not None and not self._limiter.hit(item, key):
            raise self._refusal(item, key)

    @contextlib.contextmanager
    def rows(self, key: str | None, rows: int) -> Iterator[None]:
        """Count texts, all or none of them, while they are answered inside; once the server refuses them, they count no more.

        Who comes back when Retry-After says would else be charged for each refusal, and end with 429 and no answer. Inside they
        count as reserved, so that nobody gets more by asking for several at the same time.

        Raises:
            Problem: 429 with the seconds to wait.
        """
        item = self._items.get("texts")
        if key is None or item is None or rows == 0:
            yield
            return
        with self._lock:
            if not self._limiter.test(item, key, cost=self._reserved[key] + rows):
                raise self._refusal(item, key)
            self._reserved[key] += rows
        charged = rows
        try:
            yield
        except (OverloadedError, DrainingError):
            charged = 0
            raise
        finally:
            with self._lock:
                self._reserved[key] -= rows
                if not self._reserved[key]:
                    del self._reserved[key]
                if charged:
                    self._limiter.hit(item, key, cost=charged)

    def _refusal(self, item: "RateLimitItem", key: str) -> Problem:
        # when the oldest of them leave the window; a large request may have to be sent once more even then
        wait = max(1.0, self._limiter.get_window_stats(item, key).reset_time - time.time())
        return Problem(
            429,
            RATE_LIMITED,
            f"The key '{key}' has used up its {item.amount:,} {item.namespace} a minute. Try again in "
            f"{-int(-wait // 1)} seconds.",
            min(wait, float(MINUTE)),
        )

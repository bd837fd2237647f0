"""How much one key may ask in a minute: requests and texts, in a moving window (the library `limits`)."""

import time

from newslora.serving.problems import Problem
from newslora.serving.settings import ServeSettings

MINUTE = 60  # seconds


class Rates:
    """The windows of all keys, in memory.

    Args:
        settings: `rate_requests` and `rate_rows`; 0 lets any number pass.
    """

    def __init__(self, settings: ServeSettings) -> None:
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._items = {
            what: RateLimitItemPerMinute(allowed, namespace=what)
            for what, allowed in (("requests", settings.rate_requests), ("texts", settings.rate_rows))
            if allowed
        }

    def request(self, key: str | None) -> None:
        """Count a request.

        Raises:
            Problem: 429 with the seconds to wait.
        """
        self._take("requests", key, 1)

    def rows(self, key: str | None, rows: int) -> None:
        """Count texts, all or none of them.

        Raises:
            Problem: 429 with the seconds to wait.
        """
        self._take("texts", key, rows)

    def _take(self, what: str, key: str | None, count: int) -> None:
        item = self._items.get(what)
        if key is None or item is None or count == 0 or self._limiter.hit(item, key, cost=count):
            return
        # when the oldest of them leave the window; a large request may have to come again once more
        wait = max(1.0, self._limiter.get_window_stats(item, key).reset_time - time.time())
        raise Problem(
            429,
            "rate_limited",
            f"The key '{key}' has used up its {item.amount:,} {what} a minute. Come again in {-int(-wait // 1)} seconds.",
            min(wait, float(MINUTE)),
        )

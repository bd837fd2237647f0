"""Prometheus metrics, in a registry of their own. Labels come from routes, adapters and label sets, never from clients."""

import platform
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from newslora import __version__

if TYPE_CHECKING:
    from newslora.serving.observed import Observed

Asked = Callable[[], dict[str, float]]  # numbers by name, as they are now
EachAsked = Callable[[], dict[str, dict[str, float]]]  # the same of each encoder
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
UNROUTED = "other"  # every address that is no route: made up ones must not fill the memory


class Metrics:
    """All series of the server.

    Args:
        queues: what waits by encoder, asked at each scrape: {'rows': ..., 'tokens': ..., and the bounds of both}.
        passes: forward passes so far, asked at each scrape: {'passes': ..., 'texts': ..., 'tokens': ..., 'seconds': ...}.
        adapters: what is served, asked at each scrape.
        observed: label mix and drift by adapter, asked at each scrape.
    """

    def __init__(
        self, queues: EachAsked, passes: Asked, adapters: Callable[[], list[Any]], observed: "Observed"
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = self.registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self._counted: set[str] = set()  # adapters
        self._lock = threading.Lock()  # guards it, and that no series of an adapter comes after its removal
        by_adapter = ["adapter"]
        self._requests = counter(
            "newslora_requests", "Requests by route, method and status.", ["route", "method", "status"]
        )
        self._seconds = histogram(
            "newslora_request_seconds",
            "Time to the answer's end; a stream's is its client's.",
            ["route"],
            buckets=SECONDS,
        )
        self._texts = histogram(
            "newslora_request_texts", "Texts a request, or a window of a stream.", by_adapter, buckets=ROWS
        )
        told = "Texts answered, by label; several labels count each."
        self._rows = counter("newslora_texts", told, ["adapter", "label"])
        self._unlabelled = counter("newslora_texts_without_label", "Texts that were given no label.", by_adapter)
        self._abstained = counter("newslora_texts_abstained", "Texts left undecided.", by_adapter)
        self._characters = counter("newslora_characters", "Characters of texts answered.", by_adapter)
        self._corrections = counter("newslora_corrections", "Corrections kept.", by_adapter)
        self._by_adapter = (
            self._texts, self._rows, self._unlabelled, self._abstained, self._characters, self._corrections,
        )  # fmt: skip
        self._rejected = counter("newslora_rejected", "Requests refused, by reason.", ["reason"])
        # apart from these: a stream of a thousand broken lines is one request, and was answered
        told = "Texts of requests and lines of streams that got an error in their place, by reason."
        self._failed = counter("newslora_text_errors", told, ["reason"])
        self.active = Gauge("newslora_requests_active", "Requests being answered.", registry=registry)
        build = Gauge("newslora_build_info", "Always 1.", ["version", "python"], registry=registry)
        build.labels(__version__, platform.python_version()).set(1)
        registry.register(_AtScrape(queues, passes, adapters, observed))

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """A request has ended."""
        route = route or UNROUTED
        known = method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS") else UNROUTED
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def loaded(self, adapter: str) -> None:
        """Begin to count for an adapter, or go on where it was replaced."""
        with self._lock:
            self._counted.add(adapter)

    def removed(self, adapter: str) -> None:
        """Drop its series: where adapters come and go, the registry would only grow."""
        with self._lock:
            self._counted.discard(adapter)
            for family in self._by_adapter:
                family.remove_by_labels({"adapter": adapter})

    def answered(self, adapter: str, texts: int, characters: int) -> None:
        """A request or a window of a stream; of an adapter removed meanwhile it is not counted, as below."""
        with self._lock:
            if adapter in self._counted:
                self._texts.labels(adapter).observe(texts)
                self._characters.labels(adapter).inc(characters)

    def row(self, adapter: str, labels: tuple[str, ...], abstained: bool) -> None:
        """The answer for one text."""
        with self._lock:
            if adapter not in self._counted:
                return
            for label in labels:
                self._rows.labels(adapter, label).inc()
            if abstained:
                self._abstained.labels(adapter).inc()
            elif not labels:
                self._unlabelled.labels(adapter).inc()

    def corrected(self, adapter: str) -> None:
        """A correction was kept."""
        with self._lock:
            if adapter in self._counted:
                self._corrections.labels(adapter).inc()

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def failed(self, reason: str) -> None:
        """One text of a request, or line of a stream, got an error in its place."""
        self._failed.labels(reason).inc()

    def text(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _AtScrape:
    """Gauges that are read off when somebody scrapes, so that nothing has to keep them up to date."""

    def __init__(
        self, queues: EachAsked, passes: Asked, adapters: Callable[[], list[Any]], observed: "Observed"
    ) -> None:
        self._queues, self._passes, self._adapters, self._observed = queues, passes, adapters, observed

    def collect(self) -> Any:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        meaning = {"passes": "Forward passes", "texts": "Texts (windows)", "tokens": "Tokens", "seconds": "Seconds"}
        for what, value in self._passes().items():
            name = "newslora_batches" if what == "passes" else f"newslora_batch_{what}"
            yield CounterMetricFamily(name, f"{meaning[what]} in forward passes.", value=value)
        waiting = GaugeMetricFamily(
            "newslora_queue", "What waits to be answered, and the bounds.", labels=["encoder", "what"]
        )
        for encoder, numbers in self._queues().items():
            for what, value in numbers.items():
                waiting.add_metric([encoder, what], value)
        yield waiting
        loaded = GaugeMetricFamily(
            "newslora_adapter_info", "Adapters served; always 1.", labels=["adapter", "version", "backbone"]
        )
        for one in self._adapters():
            loaded.add_metric([one.name, one.version, one.backbone], 1)
        yield loaded
        names = ["adapter", "of"]
        index = GaugeMetricFamily(
            "newslora_drift_psi", "Population stability index against the baseline.", labels=names
        )
        shifted = GaugeMetricFamily("newslora_drift_shifted", "1 where that is beyond its limit.", labels=names)
        for adapter, state in self._observed.drift().items():
            for what in ("labels", "confidence"):
                if state[what] is not None:
                    index.add_metric([adapter, what], state[what]["psi"])
                    shifted.add_metric([adapter, what], float(state[what]["shifted"]))
        yield index
        yield shifted

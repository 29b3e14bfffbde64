"""Prometheus metrics of one process, in a registry of its own.

Owns: names, buckets and rendering.  Must not know: what is measured.

Most values are read from live state when scraped (`Metrics.read`), so counting costs nothing
on hot paths; histograms are observed as things happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain"
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Sample = tuple[Sequence[str], float]
"""(label values, value)."""


class _Reader(Collector):
    """Asks a function for samples whenever the registry is scraped."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], counts: bool, read: Callable[[], Iterable[Sample]]
    ) -> None:
        self._name = name
        self._help = help_text
        self._labels = labels
        self._counts = counts
        self._read = read

    def collect(self) -> Iterator[Metric]:
        kind = CounterMetricFamily if self._counts else GaugeMetricFamily
        family = kind(self._name, self._help, labels=self._labels)
        for label_values, value in self._read():
            family.add_metric(list(label_values), value)
        yield family

    def describe(self) -> list[Metric]:
        return []


class Metrics:
    """The registry; every name gets the prefix ``skerry_``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Something that only grows, counted as it happens; name without ``_total``."""
        return Counter(f"skerry_{name}", help_text, labels, registry=self.registry)

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Something that goes up and down, set as it happens."""
        return Gauge(f"skerry_{name}", help_text, labels, registry=self.registry)

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """A distribution; seconds unless the name says otherwise."""
        return Histogram(f"skerry_{name}", help_text, labels, buckets=buckets, registry=self.registry)

    def read(
        self,
        name: str,
        help_text: str,
        read: Callable[[], Iterable[Sample]],
        *,
        labels: Sequence[str] = (),
        counts: bool = False,
    ) -> None:
        """Values read from live state at each scrape; `counts` for what only grows."""
        self.registry.register(_Reader(f"skerry_{name}", help_text, labels, counts, read))

    def render(self) -> bytes:
        """The exposition text, version 0.0.4."""
        return generate_latest(self.registry)

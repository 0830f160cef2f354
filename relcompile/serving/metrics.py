"""What a server tells Prometheus about itself."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from relcompile.serving.model import Model


class Metrics:
    """Counters of one server; several servers in one process do not share them.

    Args:
        models: those of the server, by name.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._requests = Counter("relcompile_requests", "Requests, by HTTP status", ("model", "status"), registry=own)
        self._rows = Counter("relcompile_rows", "Samples explained", ("model",), registry=own)
        self._seconds = Histogram(
            "relcompile_request_seconds", "From the last byte of a request to its answer", ("model",), registry=own
        )
        waiting = Gauge("relcompile_waiting", "Requests that wait for an explainer", ("model",), registry=own)
        for name, model in models.items():
            waiting.labels(name).set_function(model.waiting)

    def count(self, model: str, status: int) -> None:
        """One request was answered."""
        self._requests.labels(model, str(status)).inc()

    def explained(self, model: str, rows: int, seconds: float) -> None:
        """One request was explained."""
        self._rows.labels(model).inc(rows)
        self._seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)

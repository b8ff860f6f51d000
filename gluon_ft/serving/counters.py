"""What the server counts, in Prometheus' text format (prometheus_client)."""
# The extra 'serve' may be missing where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """Requests by path and status, their time, images, batches. One for each server, apart from the process's own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self._own = CollectorRegistry()
        self._requests = Counter("gluon_ft_requests", "Requests answered.", ["path", "status"], registry=own)
        self._seconds = Histogram("gluon_ft_request_seconds", "Time from a request's headers to its answer.", ["path"],
                                  buckets=_SECONDS, registry=own)
        self._images = Counter("gluon_ft_images", "Images predicted, or not readable.", ["result"], registry=own)
        self._batches = Histogram("gluon_ft_batch_images", "Images computed together.", buckets=_SIZES, registry=own)
        self.waiting = Gauge("gluon_ft_waiting_images", "Images and requests not answered yet.", registry=own)
        for result in ("predicted", "unreadable"):
            self._images.labels(result)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts a request.

        Parameters
        ----------
        path : str
            One of the server's own.
        status : int
        seconds : float
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def images(self, predicted: int, unreadable: int) -> None:
        """Counts the images of a request."""
        self._images.labels("predicted").inc(predicted)
        self._images.labels("unreadable").inc(unreadable)

    def batch(self, number: int) -> None:
        """Counts a batch of so many images."""
        self._batches.observe(number)

    def text(self) -> bytes:
        """All counters, as Prometheus reads them."""
        return generate_latest(self._own)

    def totals(self) -> dict[str, int]:
        """Requests answered, and images predicted and unreadable."""
        values = {(sample.name, sample.labels.get("result")): 0.0 for family in self._own.collect()
                  for sample in family.samples}
        for family in self._own.collect():
            for sample in family.samples:
                values[sample.name, sample.labels.get("result")] += sample.value
        return {"requests": int(values.get(("gluon_ft_requests_total", None), 0)),
                **{result: int(values["gluon_ft_images_total", result]) for result in ("predicted", "unreadable")}}

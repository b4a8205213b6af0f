"""Figures in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from unitvec import __version__
from unitvec.api.observe import BUCKETS, Traffic
from unitvec.serving.backend import Figures, Running
from unitvec.serving.counters import BATCH_TOKENS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STARTED = time.time()

_EVENTS = {
    "requests": "Embedding requests that were queued.",
    "rejected": "Requests turned away because the queue was full.",
    "cancelled": "Requests whose caller left before they were done.",
    "texts": "Texts that were run; shared and cached ones count once.",
    "tokens": "Tokens that were run, special ones included.",
    "batches": "Micro-batches that were run.",
    "attention_places": "Places of [batch, longest text] of all micro-batches; what exceeds tokens is padding.",
    "cache_hits": "Texts that were found among finished vectors.",
    "cache_misses": "Texts that were not.",
    "loads": "Models that were read into memory.",
}
_STEPS = ("parse", "tokenize", "wait", "run", "write", "load")

Sample = tuple[str, Mapping[str, object], float]


@dataclass
class Metric:
    """A family of samples.

    Attributes:
        kind: counter, gauge or histogram.
        samples: suffix of the name, labels, value.
    """

    name: str
    kind: str
    help: str
    samples: list[Sample] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Its text."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for suffix, labels, value in self.samples:
            inner = ",".join(f'{key}="{_escaped(str(told))}"' for key, told in labels.items())
            yield f"{self.name}{suffix}{'{' + inner + '}' if inner else ''} {_number(value)}"


def render(metrics: Iterable[Metric]) -> str:
    """The text of them all."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def collect(figures: Figures, traffic: Traffic) -> list[Metric]:
    """All figures."""
    return [*_of_traffic(traffic), *_of_queue(figures), *_of_models(figures.running), *_of_process()]


def _of_traffic(traffic: Traffic) -> Iterator[Metric]:
    answers: list[Sample] = [
        ("", {"method": method, "route": route, "status": status}, float(count))
        for (method, route, status), count in traffic.answers.items()
    ]
    yield Metric("unitvec_http_requests_total", "counter", "HTTP requests that were answered.", answers)
    yield _gauge("unitvec_http_requests_in_flight", "HTTP requests that are being answered.", traffic.in_flight)
    durations = Metric("unitvec_http_request_duration_seconds", "histogram", "Time to answer an HTTP request.")
    for route, seconds in traffic.durations.items():
        for bound, count in zip((*BUCKETS, math.inf), accumulate(seconds.counts), strict=True):
            durations.samples.append(("_bucket", {"route": route, "le": _number(bound)}, count))
        durations.samples.append(("_sum", {"route": route}, seconds.total))
        durations.samples.append(("_count", {"route": route}, sum(seconds.counts)))
    yield durations


def _of_queue(figures: Figures) -> Iterator[Metric]:
    yield _gauge("unitvec_queue_requests", "Requests with texts that wait for a run.", figures.requests)
    yield _gauge("unitvec_queue_tokens", "Tokens that wait for a run.", figures.tokens)
    yield _gauge("unitvec_queue_oldest_seconds", "How long the oldest of them has waited.", figures.oldest)
    yield _gauge("unitvec_running_texts", "Texts of the micro-batches that run.", figures.running_texts)
    yield _gauge("unitvec_running_tokens", "Tokens of the micro-batches that run.", figures.running_tokens)
    counters = figures.counters
    for event, told in _EVENTS.items():
        yield Metric(f"unitvec_{event}_total", "counter", told, [("", {}, getattr(counters, event))])
    steps: list[Sample] = [("", {"step": step}, getattr(counters, f"{step}_seconds")) for step in _STEPS]
    yield Metric("unitvec_step_seconds_total", "counter", "Seconds spent in each step, summed over requests.", steps)
    sizes = Metric("unitvec_batch_tokens", "histogram", "Tokens of a micro-batch.")
    for bound, count in zip((*BATCH_TOKENS, math.inf), accumulate(counters.batch_tokens), strict=True):
        sizes.samples.append(("_bucket", {"le": _number(bound)}, count))
    sizes.samples += [("_sum", {}, counters.tokens), ("_count", {}, counters.batches)]
    yield sizes
    padding = 1 - counters.tokens / counters.attention_places if counters.attention_places else 0.0
    yield _gauge("unitvec_padding_ratio", "Share of attention's places that were padding, since the start.", padding)


def _of_models(running: Sequence[Running]) -> Iterator[Metric]:
    yield _gauge("unitvec_models_loaded", "Models in memory.", len(running))
    by_model: dict[str, list[Running]] = {}
    for model in running:  # two of one name while the older version still answers
        by_model.setdefault(model.name.short, []).append(model)
    weights = Metric("unitvec_model_memory_bytes", "gauge", "Memory that a model's weights take.")
    weights.samples = [("", {"model": name}, sum(one.bytes for one in same)) for name, same in by_model.items()]
    yield weights
    left = Metric(
        "unitvec_model_expires_seconds", "gauge", "Seconds until a model leaves memory if nobody asks for it."
    )
    left.samples = [("", {"model": name}, max(one.expires_in for one in same)) for name, same in by_model.items()]
    yield left


def _of_process() -> Iterator[Metric]:
    yield Metric("unitvec_build_info", "gauge", "The version that runs.", [("", {"version": __version__}, 1)])
    times = os.times()
    yield Metric("process_cpu_seconds_total", "counter", "CPU time.", [("", {}, times.user + times.system)])
    yield _gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", _STARTED)
    try:
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        yield _gauge("process_resident_memory_bytes", "Resident memory.", pages * os.sysconf("SC_PAGE_SIZE"))
        yield _gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")))
    except OSError:  # not on this system
        return


def _gauge(name: str, told: str, value: float) -> Metric:
    return Metric(name, "gauge", told, [("", {}, value)])


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

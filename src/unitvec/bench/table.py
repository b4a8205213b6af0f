"""Measurements for people, as a table, and for programs, as fields of JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from unitvec.bench.measure import BULK_BATCH, BULK_CLIENTS, QUERY_PAUSE, Measurement, Mix

_ROW = "{:<9} {:>9} {:>6} {:>9} {:>10} {:>9} {:>9} {:>7} {:>7}"
HEAD = _ROW.format("texts", "clients", "batch", "texts/s", "tokens/s", "p50 ms", "p99 ms", "errors", "load") + (
    "\n" + " " * 50 + "load: of one core, what this generator took"
)


def row(measurement: Measurement) -> str:
    """A line of the table; what went wrong, in lines below it."""
    m = measurement
    line = _ROW.format(
        m.texts,
        m.clients if m.rate is None else f"{m.rate:g}/s",
        m.batch,
        f"{m.texts_per_second:,.1f}",
        "-" if m.tokens_per_second is None else f"{m.tokens_per_second:,.0f}",
        milliseconds(m.p50),
        milliseconds(m.p99),
        m.errors,
        f"{m.client_seconds / m.seconds:.0%}",
    )
    return "\n".join([line, *_failures(m)])


def mix(measured: Mix) -> str:
    """The mix: each by itself, and both together."""
    query, under = measured.query_alone, measured.query_under_bulk
    alone, together = measured.bulk_alone, measured.bulk_with_query
    lines = [
        f"the mix: a lone query {QUERY_PAUSE * 1000:g} ms after its last answer; "
        f"bulk from {BULK_CLIENTS} clients x {BULK_BATCH} passages",
        f"{'':<16} {'alone':>9} {'together':>9} {'ratio':>6}",
        _pair("query, p50 ms", query.p50 * 1000, under.p50 * 1000),
        _pair("query, p99 ms", query.p99 * 1000, under.p99 * 1000),
        _pair("bulk, texts/s", alone.texts_per_second, together.texts_per_second),
        f"{'errors':<16} {query.errors + alone.errors:>9} {under.errors + together.errors:>9}",
    ]
    return "\n".join([*lines, *_failures(query), *_failures(alone), *_failures(under), *_failures(together)])


def milliseconds(seconds: float) -> str:
    """A latency."""
    return f"{seconds * 1000:,.1f}"


def figures(measurement: Measurement) -> dict[str, Any]:
    """All of a measurement, with its rates; times are seconds."""
    return dataclasses.asdict(measurement) | {
        "texts_per_second": measurement.texts_per_second,
        "tokens_per_second": measurement.tokens_per_second,
        "errors": measurement.errors,
    }


def mix_figures(measured: Mix) -> dict[str, Any]:
    """The four measurements of a mix."""
    return {field.name: figures(getattr(measured, field.name)) for field in dataclasses.fields(measured)}


def _pair(name: str, alone: float, together: float) -> str:
    return f"{name:<16} {alone:>9,.1f} {together:>9,.1f} {together / alone if alone else math.nan:>6.2f}"


def _failures(measurement: Measurement) -> list[str]:
    return [f"    {times} x {failure}" for failure, times in measurement.failures.items()]

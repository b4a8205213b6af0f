"""How far a run has come, for a person: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType

from unitvec import human
from unitvec.bulk.finish import Totals
from unitvec.bulk.sources import Source
from unitvec.bulk.window import Position
from unitvec.bulk.work import Done

_EVERY = 10.0  # seconds between lines


class Progress:
    """Writes to standard error while it is entered.

    Args:
        source: the input, which may know how many rows it has.
        before: what was done already, by an earlier run.
        at: where in the input that run had come to.
    """

    def __init__(self, source: Source, before: Totals, at: Position) -> None:
        from tqdm import tqdm

        self._source = source
        self._before = before
        self._now = before
        self._began = time.monotonic()
        self._said = self._began
        self._bar: tqdm[None] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self._total(at), initial=before.rows, unit="row", unit_scale=True, dynamic_ncols=True
            )
            self._bar.set_postfix_str("0 tokens/s")
        if before.rows:
            tqdm.write(f"going on behind {before.rows:,} rows that are done", file=sys.stderr)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def tokens(self) -> int:
        """That were run since then."""
        return self._now.tokens - self._before.tokens

    def advance(self, part: Done) -> None:
        """A window is done."""
        self._now += part
        rate = f"{self.tokens / self.seconds:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.total = self._total(part.end)
            self._bar.set_postfix_str(rate, refresh=False)
            self._bar.update(part.rows)
        elif time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            sys.stderr.write(f"{self._now.rows:,} rows{self._outlook(part.end)}, {rate}\n")
            sys.stderr.flush()

    def _total(self, at: Position) -> int | None:
        """How many rows there are, or how many there seem to be."""
        share = self._source.share(at)
        return self._source.rows or (int(self._now.rows / share) if share else None)

    def _outlook(self, at: Position) -> str:
        total = self._total(at)
        done = self._now.rows - self._before.rows
        if total is None or not done:
            return ""
        left = timedelta(seconds=max(0, total - self._now.rows) * self.seconds / done)
        about = "" if self._source.rows else "about "
        return f" of {about}{total:,} ({self._now.rows / max(total, 1):.0%}), {human.duration(left).lower()} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

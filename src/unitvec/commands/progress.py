"""Progress of a fetch, for a person: one bar a layer in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from unitvec.store.progress import Progress, Report

if TYPE_CHECKING:
    from tqdm import tqdm


class _Reporter:
    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said: set[str] = set()
        self._bar: tqdm[None] | None = None
        self._digest = ""  # what the bar is about

    def report(self, progress: Progress) -> None:
        if self._is_terminal and progress.total and progress.digest and progress.completed is not None:
            bar = self._bar if progress.digest == self._digest else None
            if bar is None:
                self.close()
                bar = self._bar = _bar(progress.status, progress.total, progress.completed)
                self._digest = progress.digest
            bar.update(progress.completed - bar.n)
        elif progress.status not in self._said:
            self._said.add(progress.status)
            self.close()
            click.echo(progress.status, err=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._digest = None, ""


def _bar(label: str, total: int, completed: int) -> tqdm[None]:
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=completed,  # what lay here already says nothing of the speed
        desc=label,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        ncols=None if os.get_terminal_size(sys.stderr.fileno()).columns else 80,  # some terminals don't say
    )


@contextmanager
def reporter() -> Iterator[Report]:
    """A :data:`Report` that writes to standard error."""
    told = _Reporter()
    try:
        yield told.report
    finally:
        told.close()

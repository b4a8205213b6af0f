"""Progress of a fetch, for a person: one bar a layer in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from unitvec.store.progress import Progress, Report


@contextmanager
def reporter() -> Iterator[Report]:
    """A :data:`Report` that writes to standard error."""
    from tqdm import tqdm

    bars: dict[str, tqdm[None]] = {}
    said: set[str] = set()
    terminal = sys.stderr.isatty()

    def report(progress: Progress) -> None:
        if terminal and progress.total and progress.digest and progress.completed is not None:
            bar = bars.get(progress.digest)
            if bar is None:
                bar = bars[progress.digest] = tqdm(
                    total=progress.total,
                    initial=progress.completed,  # what lay here already says nothing of the speed
                    desc=progress.status,
                    unit="B",
                    unit_scale=True,
                    unit_divisor=1024,
                )
            bar.update(progress.completed - bar.n)
        elif progress.status not in said:
            said.add(progress.status)
            tqdm.write(progress.status, file=sys.stderr)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()

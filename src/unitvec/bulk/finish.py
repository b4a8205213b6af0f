"""From the last part to the output: files built beside it, which get their names when they are whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitvec.bulk import outputs
from unitvec.bulk.window import Part
from unitvec.bulk.work import Done, Work


@dataclass(frozen=True)
class Totals:
    """What parts have together; see :class:`unitvec.bulk.work.Done`."""

    rows: int = 0
    refused: int = 0
    texts: int = 0
    tokens: int = 0

    def __add__(self, part: Done) -> Totals:
        return Totals(
            self.rows + part.rows,
            self.refused + part.refused,
            self.texts + part.texts,
            self.tokens + part.tokens,
        )


def totals(parts: Iterable[Done]) -> Totals:
    """What some parts have together."""
    whole = Totals()
    for part in parts:
        whole += part
    return whole


def rejects_of(output: Path) -> Path:
    """Where rows are listed that have no vector."""
    return output.with_name(f"{output.name}.rejects.jsonl")


def finish(work: Work, output: Path, files: Sequence[str], *, width: int, dtype: str) -> Totals:
    """Make the output of all parts, and take them away.

    Args:
        work: where the parts are, from the first to the last.
        output: the file to make.
        files: the input's, for the list of rejects.
        width: of the vectors.
        dtype: of the vectors.

    Raises:
        NoSpace, NotWritable: the output cannot be written; all parts are still there.
        UnitvecError: a part is damaged.
    """

    def parts() -> Iterator[Part]:
        return (work.read(number) for number in work.numbers())

    whole = totals(work.about(number) for number in work.numbers())
    rejects = rejects_of(output)
    if whole.refused:
        work.put(rejects, lambda file: outputs.write_rejects(file, parts(), files))
    else:
        rejects.unlink(missing_ok=True)  # an earlier run's
    kind = outputs.kind_of(output)
    empty = np.empty((0, width), dtype)
    work.put(output, lambda file: outputs.write(kind, file, parts, whole.rows, empty))
    work.remove()
    return whole

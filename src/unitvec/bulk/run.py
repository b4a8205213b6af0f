"""The loop: windows in, parts out, a few at a time so that no core waits for a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

from unitvec.bulk.executor import Executor
from unitvec.bulk.sources import Source
from unitvec.bulk.window import Part, Position, Window, embed_window
from unitvec.bulk.work import Done, Work
from unitvec.errors import InvalidRequest

T = TypeVar("T")
U = TypeVar("U")


def ordered(function: Callable[[T], U], items: Iterable[T], ahead: int, stop: Callable[[], None]) -> Iterator[U]:
    """What ``function`` makes of each item, in their order.

    Args:
        function: called in threads.
        items: taken one by one, when there is room.
        ahead: how many are under way at a time.
        stop: called when the rest is not wanted any more: makes ``function`` end soon where it is under way.
    """
    pending: deque[Future[U]] = deque()
    with ThreadPoolExecutor(ahead, "window") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            for future in pending:
                future.cancel()
            stop()
            raise


def frontier(work: Work) -> Position:
    """All windows before this place are done."""
    return _leading(work)[1]


def missing(source: Source, work: Work) -> Iterator[Window]:
    """The windows of which no part is there; what lies before the first of them is not read."""
    done = set(work.numbers())
    for window in source.windows(*_leading(work)):
        if window.number not in done:
            yield window


def _leading(work: Work) -> tuple[int, Position]:
    """How many parts from the first on are there, and where the last of them ends."""
    done = set(work.numbers())
    number = next(number for number in count() if number not in done)
    return number, work.about(number - 1).end if number else Position()


def embed_to(work: Work, source: Source, executor: Executor, *, dtype: str, strict: bool) -> Iterator[Done]:
    """Do what is missing of some work.

    Args:
        work: where parts go.
        source: the input.
        executor: what embeds; it is closed when the loop is left before its end.
        dtype: of the vectors.
        strict: a row that cannot be embedded is an error.

    Yields:
        What became of each window, in order, once its part is kept.

    Raises:
        InvalidRequest: see ``strict``; or the input is damaged.
        UnitvecError: as the executor has it, or a part cannot be written.
    """

    def do(window: Window) -> Done:
        part = embed_window(window, executor, dtype)
        if strict:
            check(part, source)
        return work.write(part)

    yield from ordered(do, missing(source, work), executor.ahead, executor.close)


def check(part: Part, source: Source) -> None:
    """Refuse a part of which a row could not be embedded.

    Raises:
        InvalidRequest: it says which, and why.
    """
    for row, reason in sorted(part.refused.items()):
        raise InvalidRequest(f"row {part.start.row + row} of {source.files[part.start.file]}: {reason}")

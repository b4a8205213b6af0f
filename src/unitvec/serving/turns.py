"""Who is next: start-time fair queueing with a head start for newcomers.

Every member has a mark on one scale of work. Whoever has the lowest mark goes next, and what he is
given moves his mark up by as much. *Now* on that scale moves with the average member's mark, so
that everyone who waits gets an equal share (Goyal, Vin and Cheng 1996; the scale's *now* as in
Bennett and Zhang's WF2Q+, 1996). A newcomer's mark is *now*, and until his first turn he counts as
``head_start`` further back: a small request goes ahead of the bulk that was here before it. The
head start is spent with the first turn, so a stream of newcomers cannot starve anyone: with each of
their turns *now* moves on, until those who wait are the furthest back.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


class Turns(Generic[Member]):
    """Members of one kind (models, clients of a model, requests of a client) who wait for their turns."""

    def __init__(self) -> None:
        self._now = 0.0
        self._marks: dict[Member, float] = {}
        self._order: list[
            tuple[float, int, Member]
        ] = []  # a heap; entries that were superseded stay until they surface
        self._entry: dict[Member, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, member: Member) -> bool:
        return member in self._marks

    def join(self, member: Member, head_start: float) -> None:
        """Begin to wait, counting as ``head_start`` further back until the first turn.

        Nothing changes for one who waits already. The head start is in the unit of :meth:`charge`.
        """
        if member not in self._marks:
            self._marks[member] = self._now
            self._push(member, self._now - head_start)

    def leave(self, member: Member) -> None:
        """Wait no longer."""
        if self._marks.pop(member, None) is not None:
            del self._entry[member]
        if len(self._order) > 2 * len(self._marks):  # no trace of who has left may keep him in memory
            self._order = [entry for entry in self._order if self._entry.get(entry[2]) == entry[1]]
            heapq.heapify(self._order)

    def first(self) -> Member:
        """Whose turn it is. Raises IndexError when nobody waits."""
        while True:
            _, serial, member = self._order[0]
            if self._entry.get(member) == serial:
                return member
            heapq.heappop(self._order)

    def __iter__(self) -> Iterator[Member]:
        """All who wait, in the order of their turns."""
        if self._marks:
            yield self.first()  # most ask for no more
            for _, serial, member in sorted(self._order)[1:]:
                if self._entry.get(member) == serial:
                    yield member

    def charge(self, member: Member, work: float) -> None:
        """``member`` has been given ``work``."""
        self._now += work / len(self._marks)
        self._marks[member] += work
        self._push(member, self._marks[member])

    def _push(self, member: Member, key: float) -> None:
        self._serial += 1
        self._entry[member] = self._serial
        heapq.heappush(self._order, (key, self._serial, member))

"""Calls to replicas: small requests of one client for one model that come within a moment travel together."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unitvec.errors import UnitvecError
from unitvec.serving.backend import Embeddings
from unitvec.serving.batcher import Ids
from unitvec.store.name import Name

if TYPE_CHECKING:
    from ray.serve.request_router import ReplicaID

Request = tuple[Sequence[str] | Sequence[Ids], dict[str, Any]]  # texts, and options of Backend.embed
Answer = Embeddings | UnitvecError

# A call takes 1.7 ms of processor time whatever is in it, and a request of this size hardly more than it does itself.
_SMALL = 2_000  # characters, or token ids
_MOST = 16  # requests in a call, and texts in each
_MOMENT = 0.001  # seconds


class Call:
    """Requests for one model on their way to a replica and back, and their places in its queue meanwhile.

    Args:
        name: the model.
        requests: for it.
        queues: requests that are with each replica; of the caller, and not sent along.

    Attributes:
        choice: how many replicas it could have gone to.
    """

    def __init__(self, name: Name, requests: Sequence[Request], queues: Counter[ReplicaID] | None = None) -> None:
        self.name = name
        self.requests = requests
        self.queues: Counter[ReplicaID] = Counter() if queues is None else queues
        self.choice = 1
        self._replica: ReplicaID | None = None

    def __reduce__(self) -> tuple[type[Call], tuple[Name, Sequence[Request]]]:
        return Call, (self.name, self.requests)

    def goes_to(self, replica: ReplicaID) -> None:
        """It goes to this replica, and to no other one where that was said before."""
        self.over()
        self._replica = replica
        self.queues[replica] += len(self.requests)

    def over(self) -> None:
        """It is in no queue any more."""
        if self._replica is not None:
            self.queues[self._replica] -= len(self.requests)
            if not self.queues[self._replica]:
                del self.queues[self._replica]
            self._replica = None


@dataclass(eq=False)
class _Group:
    """Requests that go together, and how many of those who sent them are still there."""

    requests: list[Request] = field(default_factory=list)
    staying: int = 0
    answers: asyncio.Task[list[Answer]] = field(init=False)


@dataclass
class _Company:
    """What one client asks of one model: requests that are not answered, and those of them that still gather."""

    inside: int = 0
    choice: int = 1
    gathering: _Group | None = None

    @property
    def most(self) -> int:
        """Requests in a call: two thirds of what each replica has of them, so that one runs while another waits.

        Clients that get their answers together also ask together the next time: were there one call for all of
        them, one replica would do all the work. Half and a whole are slower; bench/README.md has the figures.
        """
        return min(_MOST, max(1, 2 * self.inside // (3 * self.choice)))

    def close(self, group: _Group) -> None:
        """Nobody joins a group any more."""
        if self.gathering is group:
            self.gathering = None


class Together:
    """Sends small requests in company. Lives on one event loop.

    Only those of one client keep company: another one's may have to wait for longer, and an answer comes with the last.

    Args:
        send: hands a call to a replica; gives an answer to each of its requests.
    """

    def __init__(self, send: Callable[[Call], Awaitable[list[Answer]]]) -> None:
        self._hand = send
        self._queues: Counter[ReplicaID] = Counter()
        self._companies: dict[tuple[Name, Hashable], _Company] = {}

    async def ask(self, name: Name, request: Request, client: Hashable) -> Answer:
        """The answer to a request; whatever ``send`` raises is raised to all who went together.

        A call is given up when the last of those who went together is cancelled.
        """
        texts = request[0]
        if len(texts) > _MOST or sum(map(len, texts)) > _SMALL:
            return await self.alone(name, request)
        company = self._companies.setdefault((name, client), _Company())
        company.inside += 1
        try:
            return await self._join(name, company, request)
        finally:
            company.inside -= 1
            if not company.inside:
                del self._companies[name, client]

    async def alone(self, name: Name, request: Request) -> Answer:
        """The same without company."""
        return (await self._send(Call(name, [request], self._queues)))[0]

    async def _join(self, name: Name, company: _Company, request: Request) -> Answer:
        group = company.gathering
        if group is None:
            group = company.gathering = _Group()
            # In a context of its own: in that of whoever came first Serve would end the call when he leaves.
            carrying = self._carry(name, company, group)
            group.answers = asyncio.get_running_loop().create_task(carrying, context=contextvars.Context())
        place = len(group.requests)
        group.requests.append(request)
        group.staying += 1
        if len(group.requests) >= company.most:
            company.close(group)
        try:
            return (await asyncio.shield(group.answers))[place]
        except asyncio.CancelledError:
            if group.answers.cancelled() and not _leaves():  # somebody ended the call, but this one waits still
                return await self.alone(name, request)
            group.staying -= 1
            if not group.staying:
                group.answers.cancel()
                company.close(group)
            raise

    async def _carry(self, name: Name, company: _Company, group: _Group) -> list[Answer]:
        if company.most > 1:
            await asyncio.sleep(_MOMENT)
        company.close(group)
        call = Call(name, tuple(group.requests), self._queues)
        answers = await self._send(call)
        company.choice = call.choice
        return answers

    async def _send(self, call: Call) -> list[Answer]:
        try:
            return await self._hand(call)
        finally:
            call.over()


def _leaves() -> bool:
    """Whether the current task is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

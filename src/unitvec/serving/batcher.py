"""The scheduling rule: which texts run together next. Pure logic, no threads, clocks or framework.

Models take turns by seconds, the clients of a model by tokens, the requests of a client by tokens
(:mod:`unitvec.serving.turns`). A micro-batch belongs to one model and takes text after text from
whoever's turn it is, until the time it may last at the model's measured speed is filled. From a
request it takes the text whose length is nearest to that of the batch's first, so that texts of like
length run together without anyone losing a turn. Nothing ever waits for a batch to fill.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from unitvec.serving.turns import Turns

Ids = tuple[int, ...]
Cost = Callable[[Any, int, int, int], int]  # bytes for a model, texts, tokens of the longest, tokens in all

# Attention takes time for (texts x longest) places. Beyond so many for each token of a micro-batch's limit, short
# texts do not ride with a long one.
_MAX_PADDING = 4


@dataclass(eq=False)
class Text:
    """One text to run, for every request that asks for it while it waits or runs."""

    ids: Ids
    claims: list[tuple[Request, int]] = field(default_factory=list)
    dispatched: bool = False


class Request:
    """The texts that one caller wants from one model.

    Args:
        model: whose vectors; models share nothing.
        client: who asks; requests of one client share that client's turns.
        ids: token ids of each text, none empty.
    """

    def __init__(self, model: Hashable, client: Hashable, ids: Sequence[Ids]) -> None:
        self.model = model
        self.client = client
        self.ids = ids
        self.tokens = sum(map(len, ids))
        self.undispatched = 0
        self._texts: list[Text] = []
        self._by_length: list[tuple[int, int]] = []  # (length, index) of those not taken yet

    def claim(self, texts: list[Text]) -> None:
        """Ask for ``texts``, those of ``ids``; some may be running for others already."""
        self._texts = texts
        for index, text in enumerate(texts):
            text.claims.append((self, index))
        waiting = [(len(text.ids), index) for index, text in enumerate(texts) if not text.dispatched]
        self._by_length = sorted(waiting)
        self.undispatched = len(waiting)

    def withdraw(self) -> list[Text]:
        """Ask for nothing any more; gives the texts that nobody else asks for."""
        texts = dict.fromkeys(self._texts)  # one that stands here many times has many claims: once is enough
        for text in texts:
            text.claims = [claim for claim in text.claims if claim[0] is not self]
        return [text for text in texts if not text.claims]

    def nearest(self, length: int | None) -> tuple[int, Text]:
        """The waiting text nearest to ``length`` tokens, the longest for None, and where to ``take`` it."""
        while True:
            place = len(self._by_length) - 1
            if length is not None:
                above = bisect_left(self._by_length, (length, -1))
                below = above - 1
                if above <= place and (
                    below < 0 or self._by_length[above][0] - length < length - self._by_length[below][0]
                ):
                    place = above
                else:
                    place = max(below, 0)
            text = self._texts[self._by_length[place][1]]
            if not text.dispatched:
                return place, text
            del self._by_length[place]  # it ran for another request that asked for the same

    def take(self, place: int) -> None:
        """The text at ``place`` waits no longer."""
        del self._by_length[place]


@dataclass(eq=False)
class MicroBatch:
    """Texts of one model that run together.

    Attributes:
        alone: it is one text, and nothing else runs or waits.
    """

    model: Hashable
    texts: list[Text]
    tokens: int
    alone: bool = False
    bytes: int = 0


def _has_no_part(busy: set[Request], most: float, request: Request) -> bool:
    """Whether a request is none of those that are busy, and has at most so many tokens."""
    return request not in busy and request.tokens <= most


class _Model:
    """What waits for one model."""

    def __init__(self, seconds_per_token: float) -> None:
        self.seconds_per_token = seconds_per_token
        self.gone = False
        self.head_start = 0.0  # tokens: of the longest text, or of a micro-batch at the highest speed so far
        self.texts: dict[Ids, Text] = {}  # waiting or running
        self.clients: Turns[Hashable] = Turns()
        self.requests: dict[Hashable, Turns[Request]] = {}

    def first(self, admits: Callable[[Request], bool]) -> Request | None:
        """Whose turn it is among those who are admitted."""
        requests = (request for client in self.clients for request in self.requests[client] if admits(request))
        return next(requests, None)


class Batcher:
    """All that waits, and what of it runs next.

    Args:
        budget: seconds that a micro-batch may last while some wait for much and others may want little.
        equal: seconds that it may last when one request has the machine to itself, or none asks for more than a
            micro-batch.
        seconds_per_token: the guess for a model that has not run yet.
        lanes: micro-batches that run at a time.
        cost: the memory that a micro-batch takes while it runs.
        memory: bytes for all that runs at a time.
    """

    def __init__(
        self,
        budget: float = 0.025,
        equal: float = 0.075,
        seconds_per_token: float = 150e-6,
        *,
        lanes: int = 1,
        cost: Cost = lambda *_: 0,
        memory: float = math.inf,
    ) -> None:
        self.cost = cost
        self.memory = memory
        self.budget = budget
        self._lanes = lanes
        self.equal = equal
        self._guess = seconds_per_token
        self._models: dict[Hashable, _Model] = {}
        self._turns: Turns[Hashable] = Turns()
        self.waiting_requests = 0
        self.waiting_tokens = 0
        self._running: dict[MicroBatch, float] = {}  # and when each is expected to be done

    def add(self, request: Request) -> None:
        """Let a request wait for its turns."""
        model = self._models.setdefault(request.model, _Model(self._guess))
        texts = []
        for ids in request.ids:
            text = model.texts.get(ids)
            if text is None:
                text = model.texts[ids] = Text(ids)
                self.waiting_tokens += len(ids)
            texts.append(text)
        request.claim(texts)
        if request.undispatched:
            self.waiting_requests += 1
            # What sets those who wait apart is at most one text: a newcomer starts further back than that. It never
            # becomes less, or those who came while it was small would wait behind all who come later.
            model.head_start = max(model.head_start, *map(len, request.ids), self.budget / model.seconds_per_token)
            model.requests.setdefault(request.client, Turns()).join(request, model.head_start)
            model.clients.join(request.client, model.head_start)
            self._turns.join(request.model, self.budget)

    def next(self, now: float) -> MicroBatch | None:
        """The micro-batch that runs next, None when nothing waits.

        Args:
            now: seconds on any steady clock.
        """
        if not self._turns:
            return None
        key = self._turns.first()
        limit = self.budget / self._models[key].seconds_per_token
        # Where all ask for little, who is new waits no shorter for smaller micro-batches, and larger ones run faster.
        equal = self.waiting_requests == 1 or self.waiting_tokens <= self.waiting_requests * limit
        seconds = self.equal if equal else self.budget
        # No lane takes so much of the last texts that the others have to wait for it; where all wait for one request's
        # end, micro-batches become smaller towards it.
        share = (self.waiting_tokens + self.running_tokens) / self._lanes / (2 if self.waiting_requests == 1 else 1)
        return self._form(key, seconds, share, lambda _: True, now)

    def beside(self, now: float) -> MicroBatch | None:
        """A micro-batch to run beside what runs, which cannot be stopped and would keep others waiting for too long.

        A long text cannot be divided, and a lone request's micro-batch is large. When all that runs has
        more than the budget still to go, those who have nothing in it need not wait for it: they share
        the cores with it. None when what runs is done soon, or nobody waits but those who have a part in it.
        What is far over its time was misjudged, and may take as long again.

        Args:
            now: seconds on the clock of :meth:`next`.
        """
        if not self._running:
            return None
        left = min(abs(end - now) for end in self._running.values())
        if left <= self.budget:
            return None
        # For a moment only what is done quickly: bulk beside bulk makes both slow, and a query would wait for either.
        quick = left <= 4 * self.budget
        busy = {request for batch in self._running for text in batch.texts for request, _ in text.claims}
        for key in self._turns:
            most = self.budget / 2 / self._models[key].seconds_per_token if quick else math.inf
            admitted = partial(_has_no_part, busy, most)
            if (batch := self._form(key, self.budget, math.inf, admitted, now)) is not None:
                return batch
        return None

    def _form(
        self, key: Hashable, seconds: float, share: float, admits: Callable[[Request], bool], now: float
    ) -> MicroBatch | None:
        model = self._models[key]
        limit = seconds / model.seconds_per_token
        batch, longest = MicroBatch(key, [], 0), 0
        room = self.memory - sum(running.bytes for running in self._running)
        while (request := model.first(admits)) is not None:
            place, text = request.nearest(len(batch.texts[0].ids) if batch.texts else None)
            tokens = len(text.ids)
            longest = max(longest, tokens)
            if batch.texts and (
                batch.tokens >= share
                or batch.tokens + tokens > limit
                or (len(batch.texts) + 1) * longest > _MAX_PADDING * limit
            ):
                break
            needed = self.cost(key, len(batch.texts) + 1, longest, batch.tokens + tokens)
            if needed > room and (batch.texts or self._running):  # by itself it runs, or waits until it can be
                break
            batch.bytes = needed
            request.take(place)
            model.requests[request.client].charge(request, tokens)
            model.clients.charge(request.client, tokens)
            batch.texts.append(text)
            batch.tokens += tokens
            text.dispatched = True
            for claimant, _ in text.claims:
                claimant.undispatched -= 1
                if not claimant.undispatched:
                    self._leave(claimant)
        if not batch.texts:
            return None
        batch.alone = len(batch.texts) == 1 and not self._running and not self._turns
        expected = batch.tokens * model.seconds_per_token / (self._lanes if batch.alone else 1)
        if key in self._turns:  # it may have left with its last text
            self._turns.charge(key, expected)
        self.waiting_tokens -= batch.tokens
        self._running[batch] = now + expected
        return batch

    def done(self, batch: MicroBatch, seconds: float | None) -> list[tuple[Request, list[tuple[int, int]]]]:
        """A micro-batch has run, in ``seconds`` (None: it failed, which tells nothing of the model's speed).

        Returns:
            For each request that asked for any of it, the pairs (index in the request, row in the batch).
        """
        model = self._models[batch.model]
        del self._running[batch]
        if seconds is not None:
            # Longer runs tell more about what a token costs; one far over its time tells it at once.
            weight = min(0.7, 0.3 * seconds / self.budget)
            seconds *= self._lanes if batch.alone else 1
            model.seconds_per_token += weight * (seconds / batch.tokens - model.seconds_per_token)
        rows: dict[Request, list[tuple[int, int]]] = {}
        for row, text in enumerate(batch.texts):
            del model.texts[text.ids]
            for request, index in text.claims:
                rows.setdefault(request, []).append((index, row))
        self._drop_if_gone(batch.model, model)
        return list(rows.items())

    @property
    def running_texts(self) -> int:
        """Texts of all micro-batches that run."""
        return sum(len(batch.texts) for batch in self._running)

    @property
    def running_tokens(self) -> int:
        """Tokens of all micro-batches that run."""
        return sum(batch.tokens for batch in self._running)

    def cancel(self, request: Request) -> None:
        """Forget a request; what waits for it alone is never run."""
        model = self._models[request.model]
        for text in request.withdraw():
            if not text.dispatched and model.texts.pop(text.ids, None) is not None:
                self.waiting_tokens -= len(text.ids)
        if request.undispatched:
            request.undispatched = 0
            self._leave(request)

    def forget(self, key: Hashable) -> None:
        """A model is gone: nobody waits for it, though what was given up may still run."""
        model = self._models.get(key)
        if model is not None:
            model.gone = True
            self._drop_if_gone(key, model)

    def _drop_if_gone(self, key: Hashable, model: _Model) -> None:
        if model.gone and not model.texts:
            del self._models[key]

    def _leave(self, request: Request) -> None:
        model = self._models[request.model]
        requests = model.requests[request.client]
        self.waiting_requests -= 1
        requests.leave(request)
        if not requests:
            del model.requests[request.client]
            model.clients.leave(request.client)
        if not model.clients:
            self._turns.leave(request.model)

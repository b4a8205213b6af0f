"""Embeds on the replicas of a cluster."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Hashable, Sequence
from typing import Any

import grpc
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from unitvec.cluster.calls import Answer, Call, Together
from unitvec.errors import Overloaded, UnitvecError
from unitvec.serving.backend import Embeddings, Figures, Running
from unitvec.serving.batcher import Ids
from unitvec.serving.counters import Counters
from unitvec.serving.runner import BUSY
from unitvec.store.name import Name

log = logging.getLogger("unitvec")

_TRIES = 4  # replicas that one request may lose before it is given up: it may be what kills them
_LOST = RayActorError, ReplicaUnavailableError, grpc.aio.AioRpcError
_PATIENCE = 5.0  # seconds that a replica is given to tell how it does


class ClusterService:
    """A :class:`unitvec.serving.backend.Backend`. Lives on one event loop.

    Embedding has no effect but its answer, so a request whose replica or node dies is sent to another one.

    Args:
        replicas: a handle of the deployment of :class:`unitvec.cluster.replica.Replica`.
        max_requests: requests that one replica lets wait.
    """

    def __init__(self, replicas: DeploymentHandle[Any], max_requests: int) -> None:
        self._replicas = replicas
        self._embed = replicas.options(
            method_name="embed", request_serialization="pickle", response_serialization="pickle"
        )
        self._together = Together(self._send)
        self.counters = Counters()
        self.max_requests = max_requests

    async def embed(
        self,
        name: Name,
        texts: Sequence[str] | Sequence[Ids],
        *,
        truncate: bool = True,
        dimensions: int = 0,
        context: int | None = None,
        keep_alive: float | None = None,
        client: Hashable = None,
    ) -> Embeddings:
        """See :meth:`unitvec.serving.backend.Backend.embed`."""
        options = {
            "truncate": truncate,
            "dimensions": dimensions,
            "context": context,
            "keep_alive": keep_alive,
            "client": client,
        }
        began = time.perf_counter_ns()
        for tries in range(_TRIES):
            try:
                # Who has lost a replica goes alone, so that nobody suffers from the company of what kills them.
                if tries:
                    answer = await self._together.alone(name, (texts, options))
                else:
                    answer = await self._together.ask(name, (texts, options), client)
            except BackPressureError:
                raise Overloaded(BUSY) from None
            except _LOST as error:
                log.warning("a replica was lost", extra={"fields": {"error": type(error).__name__}})
                continue
            if isinstance(answer, UnitvecError):
                raise answer
            return dataclasses.replace(answer, steps=(("replica", began, time.perf_counter_ns()),))
        raise Overloaded(f"{_TRIES} replicas died with this request")

    async def _send(self, call: Call) -> list[Answer]:
        response = self._embed.remote(call)
        try:
            answers: list[Answer] = await response
        except asyncio.CancelledError:  # the callers have gone: the replica need not go on
            response.cancel()
            raise
        return answers

    async def running(self) -> list[Running]:
        """The models in memory anywhere, each once: the bytes of all copies, the time of the one that stays longest."""
        return (await self.figures()).running

    async def stop(self, name: Name) -> bool:
        """Unload a model everywhere; False where nobody had it."""
        return any(await self._all("stop", name))

    async def changed(self, name: Name, *, there: bool) -> None:
        """A name stands for another model now, or for none."""
        await self._all("changed", name, there=there)

    async def figures(self) -> Figures:
        """How all replicas do together."""
        told: list[Figures] = await self._all("figures")
        models: dict[Name, Running] = {}
        for model in (model for figures in told for model in figures.running):
            known = models.get(model.name, dataclasses.replace(model, bytes=0))
            longest = max(known.expires_in, model.expires_in)
            models[model.name] = dataclasses.replace(known, bytes=known.bytes + model.bytes, expires_in=longest)
        return Figures(
            requests=sum(figures.requests for figures in told),
            tokens=sum(figures.tokens for figures in told),
            oldest=max((figures.oldest for figures in told), default=0.0),
            running_texts=sum(figures.running_texts for figures in told),
            running_tokens=sum(figures.running_tokens for figures in told),
            room=self.max_requests * len(told),
            counters=sum((figures.counters for figures in told), self.counters),
            running=sorted(models.values(), key=lambda model: -model.expires_in),
        )

    async def _all(self, method: str, *arguments: object, **options: object) -> list[Any]:
        """What all replicas answer; one that dies meanwhile has nothing to say."""
        answers = self._replicas.broadcast(method, *arguments, **options)
        try:
            told = await answers.results_async(timeout_s=_PATIENCE, return_exceptions=True)
        except TimeoutError:
            raise Overloaded("a replica of the cluster does not answer") from None
        return [answer for answer in told if not isinstance(answer, BaseException)]

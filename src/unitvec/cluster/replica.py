"""A replica: the single machine's service, in an actor of Ray Serve."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import ray

from unitvec import config, server
from unitvec.cluster.calls import Answer, Call, Request
from unitvec.errors import UnitvecError
from unitvec.serving.backend import Figures
from unitvec.store.name import Name

log = logging.getLogger("unitvec")


class Replica:
    """Holds models by need and embeds, on as many cores as the actor was given.

    Errors of the caller's are handed back as values: Serve would write a raised one into its log as a fault.

    Args:
        settings: how; ``workers`` and memory follow from the cores.
        memory: bytes for models; None for 80 % of its cores' share of the node's.
        names: models to load before the first request, and to keep.
    """

    # Serve awaits it, on the loop that will serve.
    async def __init__(self, settings: server.Settings, memory: int | None, names: Sequence[Name]) -> None:  # type: ignore[misc]
        cores = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        there = int(config.available_memory() * min(1.0, cores / config.available_cores()))
        for_models = int(0.8 * there)
        mine = dataclasses.replace(
            settings,
            threads=min(settings.threads, cores),
            workers=max(1, cores // settings.threads),
            max_bytes=memory or for_models,
            run_bytes=there - min(memory or for_models, for_models),
        )
        os.environ.setdefault("RAYON_NUM_THREADS", str(cores))
        sys.setswitchinterval(0.0005)  # as in unitvec.server.serve
        stores = config.stores()
        for name in names:
            await asyncio.to_thread(stores.fetch, name, source=settings.source)
        self._requests = 0
        self._service = server.make_service(mine, stores)
        await asyncio.gather(*(self._service.pool.pin(name) for name in names))
        server.tidy()

    async def embed(self, call: Call) -> list[Answer]:
        """An answer to each request; see :meth:`unitvec.serving.backend.Backend.embed`."""
        self._requests += len(call.requests)
        try:
            return await asyncio.gather(*(self._answer(call.name, request) for request in call.requests))
        finally:
            self._requests -= len(call.requests)

    async def _answer(self, name: Name, request: Request) -> Answer:
        texts, options = request
        try:
            return await self._service.embed(name, texts, **options)
        except UnitvecError as error:
            return error
        except Exception as error:  # those who came in the same call have no part in it
            log.exception("a request failed")
            return UnitvecError(f"internal error: {type(error).__name__}; the replica's log has more")

    async def figures(self) -> Figures:
        """How this replica does."""
        return await self._service.figures()

    async def stop(self, name: Name) -> bool:
        """Unload a model here."""
        return await self._service.stop(name)

    async def changed(self, name: Name, *, there: bool) -> None:
        """See :meth:`unitvec.serving.backend.Backend.changed`."""
        await self._service.changed(name, there=there)

    def record_routing_stats(self) -> dict[str, Any]:
        """What Serve passes on to the routers: the models that are in memory here or on their way."""
        return {"models": self._service.pool.names()}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve passes on to :func:`unitvec.cluster.scale.wanted`."""
        return {"requests": self._requests}

    def check_health(self) -> None:
        """Raises where nothing can run here any more: Serve then replaces the replica."""
        if self._service.runner.closed:
            raise RuntimeError("the scheduler failed")

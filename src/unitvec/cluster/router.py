"""Which replica a request goes to: the one with the shortest queue that has its model."""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica


class ModelRouter(RequestRouter):
    """Serve's router, told of models.

    Serve picks the shortest queue of the first group that has a place; this class says what the groups are.
    Replicas tell their models about once a second. Until then, and for a model that nobody has, all
    routers agree on the same replica by its highest random weight (Thaler and Ravishankar 1998), so that
    one replica loads it and not each. When all who have a model are busy, the next one in that order
    is offered as well: it loads the model with its first request.
    """

    def initialize_state(self, busy: int = 8, **_: Any) -> None:
        """Args: ``busy``: requests in a replica from which on another one is worth loading the model."""
        self._busy = busy

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The groups, best first."""
        if pending_request is None or not pending_request.args:
            return [candidate_replicas]
        model = pending_request.args[0].short
        # Serve waits between its tries only where it is told to.
        pending_request.routing_context.should_backoff = True
        having = [replica for replica in candidate_replicas if model in replica.routing_stats.get("models", ())]
        random.shuffle(having)  # of equal queues Serve takes the first
        others = sorted(
            (replica for replica in candidate_replicas if replica not in having),
            key=lambda replica: _weight(model, replica.replica_id),
        )
        if others and all(self._queue(replica) >= self._busy for replica in having):
            having.append(others.pop())
        return [having, others]

    def _queue(self, replica: RunningReplica) -> int:
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def _weight(model: str, replica: ReplicaID) -> bytes:
    return blake2b(f"{model} {replica.unique_id}".encode(), digest_size=8).digest()

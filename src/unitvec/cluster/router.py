"""Which replica a request goes to: the one with the shortest queue that has its model."""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from unitvec.cluster.calls import Call


class ModelRouter(RequestRouter):
    """Serve's router, told of models and of requests.

    Serve picks from the first group that has a place; this class says what the groups are. Queues are counted
    here, by requests: Serve counts calls, and takes each replica's word for them, which is old when many are on their
    way. Its number, where calls of other doors are in, decides between equals.

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
        call = _call_of(pending_request)
        if call is None or pending_request is None:
            return [candidate_replicas]
        call.over()  # what was tried before does not count
        model = call.name.short
        # Serve waits between its tries only where it is told to.
        pending_request.routing_context.should_backoff = True
        having = [replica for replica in candidate_replicas if model in replica.routing_stats.get("models", ())]
        others = sorted(
            (replica for replica in candidate_replicas if replica not in having),
            key=lambda replica: _weight(model, replica.replica_id),
        )
        if others and all(max(self._queue(call, replica)) >= self._busy for replica in having):
            having.append(others.pop())
        random.shuffle(having)
        having.sort(key=lambda replica: self._queue(call, replica))
        if having:
            call.choice = len(having)
            call.goes_to(having[0].replica_id)
        return [having[:1], having[1:], others]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:  # noqa: ARG002
        """Serve's word for where a call went, which comes with the answer: until then it counts where it was to go."""
        if (call := _call_of(pending_request)) is not None:
            call.goes_to(replica_id)

    def _queue(self, call: Call, replica: RunningReplica) -> tuple[int, int]:
        return call.queues[replica.replica_id], self.replica_queue_len_cache.get(replica.replica_id) or 0


def _call_of(pending_request: PendingRequest | None) -> Call | None:
    first = next(iter(pending_request.args), None) if pending_request else None
    return first if isinstance(first, Call) else None


def _weight(model: str, replica: ReplicaID) -> bytes:
    return blake2b(f"{model} {replica.unique_id}".encode(), digest_size=8).digest()

"""How many replicas there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy


@dataclass(frozen=True)
class Scale:
    """How many replicas there are.

    Attributes:
        least: replicas that are always there.
        most: replicas at the busiest; None for as many as the cluster has room for.
        target: requests in a replica, on average, from which on there are to be more.
        memory: bytes of each for models; None for 80 % of its cores' share of the node.
        patience: seconds that there have been too many of them before one is given up.
    """

    least: int
    most: int | None
    target: float
    patience: float
    memory: int | None

    def autoscaling(self, cores: int) -> AutoscalingConfig:
        """The same in Serve's words."""
        return AutoscalingConfig(
            min_replicas=self.least,
            initial_replicas=max(1, self.least),
            max_replicas=self.most or max(1, self.least, room(cores)),
            target_ongoing_requests=self.target,
            upscale_delay_s=5,
            downscale_delay_s=self.patience,
            policy=AutoscalingPolicy(policy_function=wanted),
        )


def wanted(now: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """How many replicas there are to be, by requests in the replicas, where Serve's own rule would count calls.

    A replica tells of its requests every 10 s; until it has, Serve's count is better than none.
    """
    inside = sum(now.aggregated_metrics.get("requests", {}).values())
    requests = max(inside + now.total_queued_requests, now.total_num_requests)
    return requests / now.config.get_target_ongoing_requests(), {}


def room(cores: int) -> int:
    """Replicas of so many cores for which the cluster has room now, if it is known."""
    return int(ray.cluster_resources().get("CPU", 0)) // cores if ray.is_initialized() else 0

"""To a cluster."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import ray

from unitvec.errors import UnitvecError

# A cluster of this machine alone has nobody who looks at Ray's own metrics, and no other nodes to tell what is free
# here ten times a second. Half of what Ray's processes take while nothing is asked goes with that.
_LOCAL = {
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_metrics_report_interval_ms": "60000",
}


def connect(address: str | None) -> None:
    """Become a client of a cluster, until ``ray.shutdown()``, which also ends one that was started here.

    Args:
        address: where it is; None for the one that this machine is part of, else one of its own; "local" for
            one of its own in any case.

    Raises:
        UnitvecError: there is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it writes where our lines go
    options: dict[str, Any] = {"namespace": "unitvec", "log_to_driver": False, "logging_level": "ERROR"}
    for name in ("ray.serve", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if address != "local":
        _reach(address)
        try:
            ray.init(address or "auto", **options)
        except ConnectionError as error:
            if address:
                raise UnitvecError(f"no cluster answers at {address}: {error}") from None
        except (RuntimeError, ValueError) as error:  # other versions of Ray or Python there, for one
            raise UnitvecError(f"cannot join the cluster: {error}") from None
        else:
            return
    for name, value in _LOCAL.items():
        os.environ.setdefault(name, value)
    ray.init("local", include_dashboard=False, **options)


def _reach(address: str | None) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            raise UnitvecError(f"no cluster answers at {address}: {error.strerror or error}") from None

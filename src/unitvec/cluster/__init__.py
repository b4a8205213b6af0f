"""The same API on a cluster, by Ray Serve: ``serve run unitvec.cluster:app``. Needs ``pip install 'unitvec[ray]'``."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from unitvec.errors import UnitvecError

if TYPE_CHECKING:
    from ray.serve import Application

    app: Application

# Calls from the door to the replicas go over gRPC, and each process does its part on one event loop: a
# call then costs a third of what it costs over Ray's object store with a hand-over between threads. The
# vectors of one request may be more than gRPC's usual 4 MiB.
SETTINGS = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
}
for _variable, _value in SETTINGS.items():  # Ray reads them when it is imported
    os.environ.setdefault(_variable, _value)

if find_spec("ray") is None:
    raise UnitvecError("a cluster needs Ray: pip install 'unitvec[ray]'")


def __getattr__(name: str) -> Any:
    """``app`` is made when it is asked for: its settings are the variables of that moment."""
    if name == "app":
        from unitvec.cluster.deploy import from_environment

        return from_environment()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

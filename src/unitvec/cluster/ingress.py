"""The door of a cluster behind Ray Serve's proxies: the API's application, embedding on the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from unitvec import config, server
from unitvec.api.observe import Traffic
from unitvec.cluster.service import ClusterService
from unitvec.store.name import Name


class Ingress:
    """Parses requests, lets in or not, and hands the texts to the replicas; as many of them as traffic needs.

    Args:
        replicas: a handle of the deployment of :class:`unitvec.cluster.replica.Replica`.
        settings: how.
        names: the models that the cluster was told to serve.
    """

    def __init__(self, replicas: DeploymentHandle[Any], settings: server.Settings, names: Sequence[Name]) -> None:
        self._replicas = replicas
        self._settings = settings
        self._names = names

    def __serve_build_asgi_app__(self) -> Starlette:
        """What Serve asks for the application, on the loop that will serve it."""
        server.tidy()
        service = ClusterService(self._replicas, self._settings.max_queue)
        return server.application(service, self._settings, config.stores(), self._names, Traffic())

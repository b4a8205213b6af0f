"""What is deployed on a cluster, and the two ways to it: ``serve run`` and ``unitvec serve --ray``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import click
import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from unitvec import __version__, server
from unitvec.api.observe import Traffic
from unitvec.cluster import SETTINGS
from unitvec.cluster.connect import connect
from unitvec.cluster.ingress import Ingress
from unitvec.cluster.replica import Replica
from unitvec.cluster.router import ModelRouter
from unitvec.cluster.scale import Scale, room
from unitvec.cluster.service import ClusterService
from unitvec.errors import UnitvecError
from unitvec.store.name import Name
from unitvec.store.stores import Stores

APPLICATION = "unitvec"
DRAIN = 60.0  # seconds that a replica which is no longer needed is given to finish


def replicas(settings: server.Settings, scale: Scale, names: Sequence[Name]) -> Application:
    """The replicas, which answer no HTTP of their own."""
    cores = settings.threads * settings.workers
    deployment = serve.deployment(
        Replica,
        ray_actor_options={"num_cpus": cores, "runtime_env": {"env_vars": SETTINGS}},
        autoscaling_config=scale.autoscaling(cores),
        # The replica's own queue turns requests away, with Ollama's words; Serve's bounds lie behind it.
        max_ongoing_requests=2 * settings.max_queue,
        max_queued_requests=settings.max_queue,
        graceful_shutdown_timeout_s=DRAIN,
        health_check_period_s=5,
        request_router_config=RequestRouterConfig(
            request_router_class=ModelRouter,
            request_router_kwargs={"busy": scale.target},
            request_routing_stats_period_s=1,
        ),
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    return deployment.bind(settings, scale.memory, names)


def application(settings: server.Settings, scale: Scale, names: Sequence[Name]) -> Application:
    """Replicas, and a door to them behind Serve's proxies."""
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": SETTINGS}},
        autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=16, target_ongoing_requests=64),
        max_ongoing_requests=settings.door.limits.connections,
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    return ingress.bind(replicas(settings, scale, names), settings, names)


def from_environment() -> Application:
    """What ``serve run unitvec.cluster:app`` deploys: ``unitvec serve``'s variables, UNITVEC_MODELS for its models."""
    from unitvec.commands import ray_options
    from unitvec.commands.serve import command, settings_of

    options = command.make_context("serve", []).params
    names = [Name.parse(name) for name in options["names"]]
    return application(settings_of(options["host"], options), ray_options.scale_of(options), names)


def serve_here(
    settings: server.Settings,
    scale: Scale,
    stores: Stores,
    at: socket.socket,
    names: Sequence[Name],
    address: str | None,
) -> None:
    """``unitvec serve --ray``: the door is this process, as on a single machine; the replicas are the cluster's.

    Where the cluster runs these replicas already, for another door, they are shared.

    Args:
        settings: how.
        scale: how many replicas, where there are none yet.
        stores: the models at hand here.
        at: a socket that listens.
        names: models that each replica keeps in memory.
        address: the cluster's; None for the one that this machine is part of, else one of its own.

    Raises:
        UnitvecError: there is no cluster at the address, or the replicas do not start.
    """
    server.allow_files()
    connect(address)
    serve.start(proxy_location="Disabled")
    known = serve.status().applications.get(APPLICATION)
    if shared := known is not None and known.status == "RUNNING":
        handle = serve.get_deployment_handle("Replica", APPLICATION)
    else:
        cores = settings.threads * settings.workers
        if room(cores) < max(1, scale.least):
            told = f"{max(1, scale.least)} x {cores}"
            click.echo(f"The cluster has too few free cores for {told}: waiting for more nodes.", err=True)
        try:
            handle = serve.run(replicas(settings, scale, names), name=APPLICATION, route_prefix=None)
        except RuntimeError as error:
            raise UnitvecError(f"the replicas do not start: {error}") from None

    async def run() -> None:
        service = ClusterService(handle, settings.max_queue)
        app = server.application(service, settings, stores, names, Traffic())
        server.tidy()
        click.echo(
            f"unitvec {__version__} on {settings.address.reachable} with Ollama's API, replicas of "
            f"{settings.workers} x {settings.threads} threads on a Ray cluster. Ctrl-C stops it."
        )
        try:
            await server.listening(app, settings, at)
        finally:  # while this loop still runs, for on it Serve's router lives
            if not shared:
                await asyncio.to_thread(serve.delete, APPLICATION)
            await handle.shutdown_async()

    try:
        with asyncio.Runner(loop_factory=server.loop_factory()) as loop:
            loop.run(run())
    finally:
        ray.shutdown()

"""A server: the service and the application around it, from the first request to the last."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvicorn
from starlette.applications import Starlette

from unitvec import __version__, config, pages
from unitvec.api import manage
from unitvec.api.app import Door, create_app
from unitvec.api.busy import Turnstile
from unitvec.api.calls import Calls
from unitvec.api.catalog import Catalog
from unitvec.api.gateway import Gateway
from unitvec.api.observe import Traffic
from unitvec.api.ollama import OllamaAPI
from unitvec.api.openai import OpenAIAPI
from unitvec.api.ops import OpsAPI
from unitvec.api.protocol import protocol
from unitvec.api.tei import TeiAPI
from unitvec.api.tracing import tracer
from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.errors import UnitvecError
from unitvec.models.config import Dtype
from unitvec.serving.backend import Backend
from unitvec.serving.batcher import Batcher
from unitvec.serving.cache import VectorCache
from unitvec.serving.counters import Counters
from unitvec.serving.model import LoadedModel, chosen_dtype, weight_bytes
from unitvec.serving.pool import Pool
from unitvec.serving.runner import Runner
from unitvec.serving.service import Service
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.stores import Stores

GRACE = 8  # seconds that requests under way are given when the server is told to stop
BACKLOG = 2048
ACCEPTS = 16  # connections that are taken in a round of the event loop
KEEP_ALIVE = 75  # seconds that an idle connection stays: longer than clients' pools keep theirs


@dataclass(frozen=True)
class Settings:
    """All that a server can be told; ``unitvec serve --help`` explains each."""

    address: config.Address
    door: Door
    tls: tuple[Path, Path] | None  # certificate and key
    upstream: str | None
    traces: bool
    keep_alive: float
    context: int
    max_queue: int
    max_queue_tokens: int
    max_models: int
    max_bytes: int
    run_bytes: int
    auto_pull: bool
    source: str | None
    cache_bytes: int
    threads: int
    workers: int
    dtype: Dtype | None  # None for each model's own


def listen(address: config.Address) -> socket.socket:
    """The socket of an address.

    Raises:
        UnitvecError: the port is taken, or the address is not this machine's.
    """
    try:
        families = [found[0] for found in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)]
        return socket.create_server(
            (address.host, address.port),
            family=min(families),  # a name of both kinds, localhost say: IPv4, as Ollama has it
            backlog=BACKLOG,
            dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UnitvecError(
                f"port {address.port} on {address.host} is in use: is Ollama running, or another unitvec? "
                f"Stop it, or choose another port with --host {address.host}:{address.port + 1}"
            ) from None
        raise UnitvecError(f"cannot listen on {address.host}:{address.port}: {error.strerror or error}") from None


def serve(settings: Settings, stores: Stores, at: socket.socket, names: Sequence[Name]) -> None:
    """Load ``names`` and serve until SIGTERM or Ctrl-C; then finish what is under way and return.

    Args:
        settings: how.
        stores: the models at hand.
        at: a socket that listens.
        names: models to keep in memory.

    Raises:
        UnitvecError: one of ``names`` cannot be run.
    """
    allow_files()
    # The thread that takes up the next micro-batch must not wait 5 ms for a busy event loop.
    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(_serve(settings, stores, at, names))


async def _serve(settings: Settings, stores: Stores, at: socket.socket, names: Sequence[Name]) -> None:
    service = make_service(settings, stores)
    await asyncio.gather(*(service.pool.pin(name) for name in names))
    tidy()
    traffic = Traffic()
    app = application(
        service, settings, stores, names, traffic, in_memory=lambda name: bool(service.pool.resident(name))
    )
    _greet(settings, service)
    # A key may have room where others have none, and what is not for this server does not wait here.
    alike = not (settings.door.keys or settings.upstream)
    await listening(app, settings, at, Turnstile(app, service.admit, traffic) if alike else None)
    await asyncio.to_thread(service.runner.close, drop=True)


def tidy() -> None:
    """Free what is unreachable, and have Python look no further at what is left: modules and models stay, and looking
    through all of it took 40 ms and more, in which nobody was answered."""
    gc.unfreeze()
    pages.collect()
    gc.freeze()


def application(
    backend: Backend,
    settings: Settings,
    stores: Stores,
    names: Sequence[Name],
    traffic: Traffic,
    *,
    in_memory: Callable[[Name], bool] = lambda _: False,
) -> Starlette:
    """All routes, with what every request passes around them. To be called on the loop that will serve it.

    Args:
        backend: embeds.
        settings: how.
        stores: the models at hand. A model that changes there is unloaded.
        names: the models that the server was told to serve.
        traffic: counts what is asked.
        in_memory: whether a model is known to be loaded without looking into the store.
    """
    loop = asyncio.get_running_loop()

    def changed(name: Name, now: StoredModel | None) -> None:
        asyncio.run_coroutine_threadsafe(backend.changed(name, there=now is not None), loop)

    stores.on_change = changed
    catalog, calls = Catalog(stores), Calls(backend, settings.door.limits)
    routes = [
        *OllamaAPI(calls, catalog, settings.dtype).routes,
        *OpenAIAPI(calls, catalog).routes,
        *TeiAPI(calls, catalog, names).routes,
        *manage.routes(stores),
        *OpsAPI(backend, traffic).routes,
    ]
    gateway = None
    if settings.upstream:
        gateway = Gateway(settings.upstream, catalog, in_memory, keeps_key=bool(settings.door.keys))
        routes = gateway.around(routes)
    return create_app(
        routes,
        settings.door,
        traffic,
        elsewhere=gateway.send_on if gateway else None,
        tracer=tracer() if settings.traces else None,
    )


async def listening(app: Starlette, settings: Settings, at: socket.socket, turnstile: Turnstile | None = None) -> None:
    """Serve ``app`` on a socket until SIGTERM or Ctrl-C, and then what is under way."""
    server = uvicorn.Server(
        uvicorn.Config(
            turnstile or app,
            http=protocol(settings.door.limits, turnstile),
            ws="none",
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=settings.tls[0] if settings.tls else None,
            ssl_keyfile=settings.tls[1] if settings.tls else None,
            timeout_graceful_shutdown=GRACE,
        )
    )
    # uvicorn turns these into a graceful stop, and raises them once more when it is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # libuv takes one connection from a socket in each of its rounds, which are long when there is much to do; a
    # thousand clients that come at once would wait for as many of them.
    uvloop = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    await server.serve(sockets=[at, *(at.dup() for _ in range(ACCEPTS - 1 if uvloop else 0))])
    await asyncio.sleep(0)  # what was cut short hears of it


def make_service(settings: Settings, stores: Stores) -> Service:
    """The service of this process, as the settings have it; on the loop that it is to live on."""
    counters = Counters()

    # Concurrent calls pull a model once.
    find = partial(stores.fetch, source=settings.source) if settings.auto_pull else stores.get

    how: Any = {"threads": settings.threads, "workers": settings.workers, "cache_dir": config.cache_dir()}

    def prepare(stored: StoredModel) -> tuple[int, Callable[[], LoadedModel]]:
        checkpoint = stored.open()
        dtype = chosen_dtype(stored.parameters, settings.dtype)
        return weight_bytes(checkpoint, **how, dtype=dtype), partial(load, checkpoint, dtype)

    def load(checkpoint: Checkpoint, dtype: Dtype) -> LoadedModel:
        began = time.monotonic()
        model = LoadedModel(checkpoint, **how, dtype=dtype)
        counters.loads += 1
        counters.load_seconds += time.monotonic() - began
        return model

    def unloaded(model: LoadedModel) -> None:
        runner.forget(model)
        # Once those who still hold it have let go of it. What is freed goes back to the system, not to a later use.
        asyncio.get_running_loop().call_later(0.1, tidy)

    runner = Runner(
        Batcher(lanes=settings.workers, cost=LoadedModel.footprint, memory=settings.run_bytes),
        LoadedModel.run,
        workers=settings.workers,
        max_requests=settings.max_queue,
        max_tokens=settings.max_queue_tokens,
        counters=counters,
    )
    pool = Pool(
        find,
        prepare,
        unloaded,
        keep_alive=settings.keep_alive,
        max_models=settings.max_models,
        max_bytes=settings.max_bytes,
        max_waiting=settings.max_queue,
    )
    return Service(pool, runner, VectorCache(settings.cache_bytes), counters, settings.context)


def _greet(settings: Settings, service: Service) -> None:
    url = settings.address.reachable
    cores = f"{settings.workers} x {settings.threads} threads"
    click.echo(f"unitvec {__version__} on {url} with Ollama's API, {cores}. Ctrl-C stops it.")
    residents = service.pool.residents()
    for resident in residents:
        model = resident.model
        told = f"{model.width} dimensions, texts up to {service.context_of(resident)} tokens, {model.bytes >> 20} MiB"
        told += ", int8" if model.dtype == "int8" else ""
        click.echo(f"  {resident.stored.name.short}: {told}")
    name = residents[0].stored.name.short.removesuffix(":latest") if residents else "MODEL"
    click.echo(f"""Try: curl {url}/api/embed -d '{{"model": "{name}", "input": "Why is the sky blue?"}}'""")


def allow_files() -> None:
    """Let this process open as many files as it may: the usual soft limit, 1,024, is less than --max-connections."""
    try:
        import resource
    except ImportError:  # there is none for Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems say more than they let one have
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; None for Python's own."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop

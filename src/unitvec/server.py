"""A server: the service and the application around it, from the first request to the last."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import uvicorn

from unitvec import __version__, config, pages
from unitvec.api import manage
from unitvec.api.app import Door, create_app
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
from unitvec.errors import UnitvecError
from unitvec.models.config import Dtype
from unitvec.serving.batcher import Batcher
from unitvec.serving.cache import VectorCache
from unitvec.serving.counters import Counters
from unitvec.serving.model import LoadedModel, chosen_dtype
from unitvec.serving.pool import Pool
from unitvec.serving.runner import Runner
from unitvec.serving.service import Service
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.stores import Stores

GRACE = 8  # seconds that requests under way are given when the server is told to stop
BACKLOG = 2048
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
    _allow_files()
    # The thread that takes up the next micro-batch must not wait 5 ms for a busy event loop.
    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=_loop_factory()) as loop:
        loop.run(_serve(settings, stores, at, names))


async def _serve(settings: Settings, stores: Stores, at: socket.socket, names: Sequence[Name]) -> None:
    service = _service(settings, stores)
    loop = asyncio.get_running_loop()

    def changed(name: Name) -> None:
        loop.call_soon_threadsafe(service.pool.stop, name)  # the next request loads what it stands for now

    stores.on_change = changed
    await asyncio.gather(*(service.pool.pin(name) for name in names))
    traffic = Traffic()
    catalog, calls = Catalog(stores), Calls(service, settings.door.limits)
    routes = [
        *OllamaAPI(calls, catalog, settings.dtype).routes,
        *OpenAIAPI(calls, catalog).routes,
        *TeiAPI(calls, catalog, names).routes,
        *manage.routes(stores),
        *OpsAPI(service, traffic).routes,
    ]
    gateway = None
    if settings.upstream:
        keeps_key = bool(settings.door.keys)
        gateway = Gateway(settings.upstream, catalog, lambda n: bool(service.pool.resident(n)), keeps_key=keeps_key)
        routes = gateway.around(routes)
    app = create_app(
        routes,
        settings.door,
        traffic,
        elsewhere=gateway.send_on if gateway else None,
        tracer=tracer() if settings.traces else None,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol(settings.door.limits),
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
    _greet(settings, service)
    # uvicorn turns these into a graceful stop, and raises them once more when it is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    await server.serve(sockets=[at])
    await asyncio.sleep(0)  # what was cut short hears of it
    await asyncio.to_thread(service.runner.close, drop=True)


def _service(settings: Settings, stores: Stores) -> Service:
    counters = Counters()

    # Concurrent calls pull a model once.
    find = stores.fetch if settings.auto_pull else stores.get

    def load(stored: StoredModel) -> LoadedModel:
        began = time.monotonic()
        model = LoadedModel(
            stored.open(),
            threads=settings.threads,
            workers=settings.workers,
            cache_dir=config.cache_dir(),
            dtype=chosen_dtype(stored.parameters, settings.dtype),
        )
        counters.loads += 1
        counters.load_seconds += time.monotonic() - began
        return model

    def unloaded(model: LoadedModel) -> None:
        runner.forget(model)
        # Once those who still hold it have let go of it. What is freed goes back to the system, not to a later use.
        asyncio.get_running_loop().call_later(0.1, pages.collect)

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
        load,
        unloaded,
        keep_alive=settings.keep_alive,
        max_models=settings.max_models,
        max_bytes=settings.max_bytes,
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


def _allow_files() -> None:
    """Let this process open as many files as it may: the usual soft limit, 1,024, is less than --max-connections."""
    try:
        import resource
    except ImportError:  # there is none for Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems say more than they let one have
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop

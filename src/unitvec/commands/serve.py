"""``unitvec serve``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, get_args

import click

from unitvec import config, logs
from unitvec.api.values import parse_duration
from unitvec.commands.http_options import door, http_options, tls
from unitvec.commands.progress import reporter
from unitvec.commands.ray_options import ray_options, scale_of
from unitvec.commands.setting import setting
from unitvec.commands.source import source_option
from unitvec.errors import InvalidRequest
from unitvec.models.config import Dtype
from unitvec.store.name import Name

if TYPE_CHECKING:
    from unitvec.server import Settings

DEFAULT_QUEUE = 512


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str) -> float:  # noqa: ARG001
    try:
        seconds = float(value)
    except ValueError:
        try:
            return parse_duration(value)
        except InvalidRequest as error:
            raise click.BadParameter(f"{error.message}; write 300, 5m, 1h30m, or -1 for ever") from None
    if math.isnan(seconds):
        raise click.BadParameter("nan is no duration; write 300, 5m, 1h30m, or -1 for ever")
    return math.inf if seconds < 0 else seconds


def _bytes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:  # noqa: ARG001
    if value is None:
        return None
    number, unit = value.upper().removesuffix("B").removesuffix("I"), 0
    if number[-1:] in "KMGT" and number:
        number, unit = number[:-1], "KMGT".index(number[-1]) + 1
    with contextlib.suppress(ValueError, OverflowError):
        if (size := int(float(number) * 1024**unit)) > 0:
            return size
    raise click.BadParameter(f"{value!r} is no size; write 800M or 4G")


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...", envvar="UNITVEC_MODELS")
@setting("--host", "OLLAMA_HOST", "Address to listen on: HOST, HOST:PORT or :PORT.", default="127.0.0.1:11434")
@setting(
    "--keep-alive",
    "OLLAMA_KEEP_ALIVE",
    "How long a model that was asked for stays in memory; -1 is for ever.",
    default="5m",
    callback=_seconds,
)
@setting(
    "--context-length",
    "OLLAMA_CONTEXT_LENGTH",
    "Tokens that a text is cut to where neither request nor model says; 0 for the default.",
    type=click.IntRange(min=0),
    default=config.DEFAULT_CONTEXT,
)
@setting(
    "--max-queue",
    "OLLAMA_MAX_QUEUE",
    "Requests that may wait before the next is answered 503; 0 for the default.",
    type=click.IntRange(min=0),
    default=DEFAULT_QUEUE,
)
@setting(
    "--max-queue-tokens",
    "UNITVEC_MAX_QUEUE_TOKENS",
    "Tokens that may wait before the next request is answered 503.",
    type=click.IntRange(min=1),
    default=4_000_000,
)
@setting(
    "--max-loaded-models",
    "OLLAMA_MAX_LOADED_MODELS",
    "Models in memory at a time; 0 for as many as fit.",
    type=click.IntRange(min=0),
    default=0,
)
@setting(
    "--memory",
    "UNITVEC_MEMORY",
    "Memory for models, such as 4G; texts that run have the rest.  [default: 80 % of what this process may use]",
    callback=_bytes,
)
@setting(
    "--auto-pull",
    "UNITVEC_AUTO_PULL",
    "Pull a model that is asked for and not at hand, instead of answering 404.",
    is_flag=True,
)
@setting(
    "--cache-mb",
    "UNITVEC_CACHE_MB",
    "Memory for finished vectors, in MiB: a text that was embedded before is not run again.",
    type=click.IntRange(min=0),
    default=0,
)
@setting(
    "--threads",
    "UNITVEC_THREADS",
    "Cores of each micro-batch; a text that is alone gets more.  [default: cores / workers]",
    type=click.IntRange(1, 256),
)
@setting(
    "--workers",
    "UNITVEC_WORKERS",
    "Micro-batches that run at a time.  [default: cores / threads, else one a core, at most 8]",
    type=click.IntRange(1, 256),
)
@setting(
    "--dtype",
    "UNITVEC_DTYPE",
    "What models compute in: int8 is faster, docs/int8.md says at what price.  [default: each model's own]",
    type=click.Choice(get_args(Dtype)),
)
@setting(
    "--log-level",
    "UNITVEC_LOG_LEVEL",
    "What is worth a line on standard error.",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
)
@setting(
    "--log-format", "UNITVEC_LOG_FORMAT", "How those lines look.", type=click.Choice(["text", "json"]), default="text"
)
@source_option
@http_options
@ray_options
def command(names: tuple[str, ...], host: str, ray: str | None, **options: Any) -> None:
    """Serve models over HTTP, with Ollama's API.

    The MODELs named are fetched where they are missing, and stay in memory. Others that are at hand are
    loaded when they are first asked for.
    """
    from unitvec import server

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the server itself handles it

    wanted = [Name.parse(name) for name in names]
    settings = settings_of(host, options)
    if ray is not None:
        scale = scale_of(options)
        from unitvec.cluster import deploy
    socket = server.listen(settings.address)  # before anything that takes long
    stores = config.stores()
    for name in wanted:
        with reporter() as report:
            stores.fetch(name, report, options["source"])
    logs.configure(options["log_level"], options["log_format"])
    os.environ.setdefault(
        "RAYON_NUM_THREADS", str(config.available_cores())
    )  # the tokenizer's threads know nothing of a container's limit
    if ray is not None:
        deploy.serve_here(settings, scale, stores, socket, wanted, ray or None)
    else:
        server.serve(settings, stores, socket, wanted)


def settings_of(host: str, options: dict[str, Any]) -> Settings:
    """What the options say, as click gives them."""
    from unitvec.server import Settings

    address = config.Address.parse(host)
    certificates = tls(options, address)
    if certificates:
        address = dataclasses.replace(address, scheme="https")
    cores, workers, memory = config.available_cores(), options["workers"], options["memory"]
    threads = options["threads"] or (-(-cores // workers) if workers else config.threads_each(cores))
    for_models = int(0.8 * config.available_memory())
    return Settings(
        address=address,
        door=door(options, loopback=address.is_loopback),
        tls=certificates,
        upstream=options["upstream"],
        traces=options["traces"],
        keep_alive=options["keep_alive"],
        context=options["context_length"] or config.DEFAULT_CONTEXT,
        max_queue=options["max_queue"] or DEFAULT_QUEUE,
        max_queue_tokens=options["max_queue_tokens"],
        max_models=options["max_loaded_models"] or config.UNBOUNDED,
        max_bytes=memory or for_models,
        run_bytes=config.available_memory() - min(memory or for_models, for_models),
        auto_pull=options["auto_pull"],
        source=options["source"],
        cache_bytes=options["cache_mb"] << 20,
        threads=threads,
        workers=workers or max(1, cores // threads),
        dtype=options["dtype"],
    )

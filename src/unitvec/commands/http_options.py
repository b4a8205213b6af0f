"""The options of ``unitvec serve`` that are about HTTP: who is let in, what he may ask for, what passes through."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from unitvec.api.app import Door
    from unitvec.api.limits import Limits

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS = [
    click.option(
        "--origins",
        envvar="OLLAMA_ORIGINS",
        default="",
        show_envvar=True,
        help="Browser origins to let in besides local ones, separated by commas; * stands for anything.",
    ),
    click.option(
        "--api-key",
        "api_keys",
        envvar="UNITVEC_API_KEY",
        multiple=True,
        show_envvar=True,
        help="A key that callers must send; may be given several times (in the environment: separated by spaces).",
    ),
    click.option(
        "--api-key-file",
        envvar="UNITVEC_API_KEY_FILE",
        type=_FILE,
        show_envvar=True,
        help="Keys, one a line; empty lines and those that begin with # are skipped.",
    ),
    click.option(
        "--read-only",
        envvar="UNITVEC_READ_ONLY",
        is_flag=True,
        show_envvar=True,
        help="Refuse to pull, push, create, copy and delete models over HTTP.",
    ),
    click.option("--tls-cert", envvar="UNITVEC_TLS_CERT", type=_FILE, show_envvar=True, help="Certificates, PEM."),
    click.option("--tls-key", envvar="UNITVEC_TLS_KEY", type=_FILE, show_envvar=True, help="Their key, PEM."),
    click.option(
        "--upstream",
        envvar="UNITVEC_UPSTREAM",
        metavar="URL",
        show_envvar=True,
        help="Pass what cannot be answered here through to another server, such as an Ollama on another port.",
    ),
    click.option(
        "--max-body",
        envvar="UNITVEC_MAX_BODY",
        type=click.IntRange(min=1),
        default=64,
        show_envvar=True,
        show_default=True,
        help="MiB of a request's body.",
    ),
    click.option(
        "--max-texts",
        envvar="UNITVEC_MAX_TEXTS",
        type=click.IntRange(min=1),
        default=16_384,
        show_envvar=True,
        show_default=True,
        help="Texts of a request.",
    ),
    click.option(
        "--max-text-length",
        envvar="UNITVEC_MAX_TEXT_LENGTH",
        type=click.IntRange(min=1),
        default=1_000_000,
        show_envvar=True,
        show_default=True,
        help="Characters of a text.",
    ),
    click.option(
        "--max-connections",
        envvar="UNITVEC_MAX_CONNECTIONS",
        type=click.IntRange(min=1),
        default=2_048,
        show_envvar=True,
        show_default=True,
        help="Open connections.",
    ),
    click.option(
        "--patience",
        envvar="UNITVEC_PATIENCE",
        type=click.FloatRange(min=0.1),
        default=10.0,
        show_envvar=True,
        show_default=True,
        help="Seconds in which a request that is arriving must bring 1 KiB or be whole.",
    ),
    click.option(
        "--traces",
        envvar="UNITVEC_TRACES",
        is_flag=True,
        show_envvar=True,
        help="Send OpenTelemetry traces, where OTEL_EXPORTER_OTLP_ENDPOINT says; needs unitvec[traces].",
    ),
]


def http_options(function: F) -> F:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def door(options: dict[str, Any], *, loopback: bool) -> Door:
    """What the options say about who is let in.

    Args:
        options: as click gives them.
        loopback: only this machine can reach the server.
    """
    from unitvec.api.app import Door
    from unitvec.api.keys import Keys

    return Door(
        origins=tuple(options["origins"].split(",")),
        check_host=loopback,
        keys=Keys([*options["api_keys"], *_keys_of(options["api_key_file"])]),
        limits=_limits(options),
        read_only=options["read_only"],
    )


def tls(options: dict[str, Any]) -> tuple[Path, Path] | None:
    """Certificate and key, None for plain HTTP."""
    pair = options["tls_cert"], options["tls_key"]
    if any(pair) and not all(pair):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if not all(pair):
        return None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*pair)
    except (OSError, ssl.SSLError) as error:
        raise click.BadParameter(f"they do not fit or cannot be read: {error}", param_hint="--tls-cert") from None
    return pair


def _limits(options: dict[str, Any]) -> Limits:
    from unitvec.api.limits import Limits

    return Limits(
        body=options["max_body"] << 20,
        texts=options["max_texts"],
        characters=options["max_text_length"],
        connections=options["max_connections"],
        patience=options["patience"],
    )


def _keys_of(path: Path | None) -> Iterable[str]:
    if path is None:
        return []
    try:
        lines = map(str.strip, path.read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {path}: {error}", param_hint="--api-key-file") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:  # nobody who names a file means a server that is open to all
        raise click.BadParameter(f"there is no key in {path}", param_hint="--api-key-file")
    return keys

"""The options of ``unitvec serve`` that are about HTTP: who is let in, what he may ask for, what passes through."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitvec.commands.setting import setting

if TYPE_CHECKING:
    from unitvec.api.app import Door
    from unitvec.api.limits import Limits
    from unitvec.config import Address

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _no_empty_key(ctx: click.Context, parameter: click.Parameter, keys: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG001
    if not all(key.strip() for key in keys):  # of a variable that is not set, say: it would let everybody in
        raise click.BadParameter("it is empty")
    return keys


_OPTIONS = [
    setting(
        "--origins",
        "OLLAMA_ORIGINS",
        "Browser origins to let in besides local ones, separated by commas; * stands for anything.",
        default="",
    ),
    setting(
        "--api-key",
        "UNITVEC_API_KEY",
        "A key that callers must send; may be given several times (in the environment: separated by spaces).",
        multiple=True,
        callback=_no_empty_key,
    ),
    setting(
        "--api-key-file",
        "UNITVEC_API_KEY_FILE",
        "Keys, one a line; empty lines and those that begin with # are skipped.",
        type=_FILE,
    ),
    setting(
        "--read-only",
        "UNITVEC_READ_ONLY",
        "Refuse to pull, push, create, copy and delete models over HTTP.",
        is_flag=True,
    ),
    setting("--tls-cert", "UNITVEC_TLS_CERT", "Certificates, PEM.", type=_FILE),
    setting("--tls-key", "UNITVEC_TLS_KEY", "Their key, PEM.", type=_FILE),
    setting(
        "--upstream",
        "UNITVEC_UPSTREAM",
        "Pass what cannot be answered here through to another server, such as an Ollama on another port.",
        metavar="URL",
    ),
    setting("--max-body", "UNITVEC_MAX_BODY", "MiB of a request's body.", type=click.IntRange(min=1), default=64),
    setting(
        "--max-bodies",
        "UNITVEC_MAX_BODIES",
        "MiB of the bodies over 64 KiB of all requests at a time.",
        type=click.IntRange(min=1),
        default=256,
    ),
    setting(
        "--max-texts", "UNITVEC_MAX_TEXTS", "Texts of a request.", type=click.IntRange(1, 1_000_000), default=16_384
    ),
    setting(
        "--max-text-length",
        "UNITVEC_MAX_TEXT_LENGTH",
        "Characters of a text.",
        type=click.IntRange(min=1),
        default=1_000_000,
    ),
    setting(
        "--max-connections", "UNITVEC_MAX_CONNECTIONS", "Open connections.", type=click.IntRange(min=1), default=2_048
    ),
    setting(
        "--patience",
        "UNITVEC_PATIENCE",
        "Seconds in which a request that is arriving must bring 1 KiB or be whole.",
        type=click.FloatRange(min=0.1),
        default=10.0,
    ),
    setting(
        "--traces",
        "UNITVEC_TRACES",
        "Send OpenTelemetry traces, where OTEL_EXPORTER_OTLP_ENDPOINT says; needs unitvec[traces].",
        is_flag=True,
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
        keys=Keys([*options["api_key"], *_keys_of(options["api_key_file"])]),
        limits=_limits(options),
        read_only=options["read_only"],
    )


def tls(options: dict[str, Any], address: Address) -> tuple[Path, Path] | None:
    """Certificate and key, None for plain HTTP.

    Args:
        options: as click gives them.
        address: where the server listens; https asks for a certificate.
    """
    pair = options["tls_cert"], options["tls_key"]
    if any(pair) and not all(pair):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if not all(pair):
        if address.scheme == "https":
            raise click.UsageError("https in --host (or OLLAMA_HOST) needs --tls-cert and --tls-key")
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
        bodies=options["max_bodies"] << 20,
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

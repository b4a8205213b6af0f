"""``unitvec embed``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, get_args

import click
import numpy as np
import orjson

from unitvec.commands.bulk_options import asks_for_files, bulk_options, embed_files
from unitvec.commands.progress import reporter
from unitvec.commands.source import source_option
from unitvec.errors import InvalidRequest
from unitvec.models.config import Dtype

_WINDOW = 1024  # lines of standard input that are read before they run: enough to fill micro-batches


@click.command()
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "plain", "npy"]),
    help="json: one array a line. plain: numbers with spaces between. npy: one float32 array [texts, width].  "
    "[default: json]",
)
@click.option("--dimensions", type=int, default=0, help="Cut vectors to this length and renormalize.")
@click.option(
    "--truncate/--no-truncate",
    default=True,
    show_default=True,
    help="Cut texts that are longer than the context, or refuse them.",
)
@click.option("--context-length", type=click.IntRange(min=1), help="Tokens a text may have.  [default: the model's]")
@click.option("--compute", type=click.Choice(get_args(Dtype)), help="What to compute in.  [default: the model's own]")
@source_option
@bulk_options
def command(
    model: str,
    texts: tuple[str, ...],
    form: str | None,
    dimensions: int,
    truncate: bool,
    context_length: int | None,
    compute: Dtype | None,
    source: str | None,
    **bulk: Any,
) -> int:
    """Embed TEXTS, or the lines of standard input where there are none, in this process.

    Vectors go to standard output in the order of the texts.

    With --input and --output, embed files of any size. A run that was ended goes on when it is called again.
    The exit status is 3 where some rows could not be embedded.
    """
    if asks_for_files(bulk):
        if texts or form:
            raise click.UsageError("with --input there are no texts as arguments, and --output's name says the format")
        if compute:
            raise click.UsageError("--compute is not for files: they are embedded in the model's own way")
        return embed_files(model, dimensions, truncate, context_length, bulk | {"source": source})
    form = form or "json"
    if sys.stdout is None:
        raise click.UsageError("standard output is closed")
    if form == "npy" and sys.stdout.isatty():
        raise click.UsageError("--format npy is for a file or a pipe: unitvec embed ... --format npy > vectors.npy")
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("nothing to embed: give texts as arguments, or lines on standard input")
    from unitvec.local import Model

    with reporter() as report:
        loaded = Model(model, dtype=compute, source=source, report=report)
    out = sys.stdout.buffer
    parts = []
    with loaded:
        for window in [[_utf8(text, n) for n, text in enumerate(texts, 1)]] if texts else _windows():
            vectors = loaded.embed(window, truncate=truncate, dimensions=dimensions, context=context_length)
            if form == "npy":
                parts.append(vectors)
            elif form == "json":
                out.writelines(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for row in vectors)
            else:
                out.writelines(" ".join(map(str, row)).encode() + b"\n" for row in vectors)
            out.flush()
        if form == "npy":
            empty = np.empty((0, loaded.width), np.float32)
            np.save(out, np.concatenate(parts) if parts else empty)
    return 0


def _utf8(argument: str, number: int) -> str:
    """An argument as it was typed, whatever the locale says of its bytes."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise InvalidRequest(f"text {number} is not UTF-8") from None


def _windows() -> Iterator[list[str]]:
    """Lines of standard input without their ends, many at a time."""
    window: list[str] = []
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            window.append(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise InvalidRequest(f"line {number} of standard input is not UTF-8") from None
        if len(window) == _WINDOW:
            yield window
            window = []
    if window:
        yield window

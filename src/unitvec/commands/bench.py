"""``unitvec bench``."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from unitvec import __version__
from unitvec.bench import load, machine, plot, table
from unitvec.bench.measure import BULK_BATCH, BULK_CLIENTS, Bench, Measurement
from unitvec.bench.protocol import PROTOCOLS
from unitvec.bench.texts import KINDS, SEED_BITS, Texts

_MIX_SHARE = 4  # a percentile of one client needs more time than a throughput


Convert = Callable[[Any, click.Parameter | None, click.Context | None], Any]


def _each(convert: Convert) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """Values with commas between, each converted."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: str) -> list[Any]:
        return [convert(part.strip(), parameter, ctx) for part in value.split(",") if part.strip()]

    return callback


_COUNT = click.IntRange(min=1).convert
_RATE = click.FloatRange(min=0, min_open=True).convert


@click.command()
@click.argument("url", default="http://127.0.0.1:11434")
@click.option("--model", default="all-minilm", show_default=True, help="The model, as the server calls it.")
@click.option("--kind", type=click.Choice(list(PROTOCOLS)), default="ollama", show_default=True, help="The API.")
@click.option(
    "--texts",
    callback=_each(click.Choice(KINDS).convert),
    default=",".join(KINDS),
    show_default=True,
    help="Short (about 35 tokens), passages (about 150), mixed lengths.",
)
@click.option(
    "--clients",
    callback=_each(_COUNT),
    default="1,16,64,256",
    show_default=True,
    help="Clients at once, each sending one text a request; '' for none of this.",
)
@click.option(
    "--batches",
    callback=_each(_COUNT),
    default="8,64,1000",
    show_default=True,
    help="Texts a request, from one client; '' for none of this.",
)
@click.option(
    "--rates",
    callback=_each(_RATE),
    default="",
    help="Requests a second that arrive whatever becomes of them; latency counts from the intended time.",
)
@click.option(
    "--mix/--no-mix",
    default=True,
    show_default=True,
    help=f"A lone query, idle and while {BULK_CLIENTS} clients send batches of {BULK_BATCH} passages.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5, show_default=True, help="Time for each line.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=300, show_default=True, help="Seconds for an answer."
)
@click.option("--seed", type=click.IntRange(min=0), help="Sends the texts of an earlier run.  [default: a random one]")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw the mix there.")
def command(
    url: str,
    model: str,
    kind: str,
    texts: list[str],
    clients: list[int],
    batches: list[int],
    rates: list[float],
    mix: bool,
    seconds: float,
    timeout: float,
    seed: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure the server at URL, http://127.0.0.1:11434 where none is given.

    Every text is new to the server, every answer is checked.
    """
    if plot_file is not None:
        if not mix:
            raise click.UsageError("--plot draws the mix: leave --no-mix out")
        plot.check()
    seed = secrets.randbits(SEED_BITS) if seed is None else seed
    bench = Bench(url, kind, model, Texts(seed), timeout=timeout)
    report: dict[str, Any] = {
        "unitvec": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "url": url,
        "kind": kind,
        "model": model,
        "seed": seed,
        "machine": machine.describe(),
        "measurements": [],
        "mix": None,
    }

    async def measure() -> None:
        await bench.probe()
        click.echo(f"{model} at {url}, {bench.width} dimensions; about {seconds:g} s a line. Ctrl-C stops it.\n")
        click.echo(table.HEAD)
        for text in texts:
            for number in clients:
                show(await bench.closed(text, number, 1, seconds))
            for batch in batches:
                show(await bench.closed(text, 1, batch, seconds))
            for rate in rates:
                show(await bench.open(text, rate, 1, seconds))
        if mix:
            measured = await bench.mix(_MIX_SHARE * seconds)
            report["mix"] = table.mix_figures(measured)
            click.echo("\n" + table.mix(measured))
            if plot_file is not None:
                plot.draw({model: plot.latencies(measured)}, plot_file)

    def show(measurement: Measurement) -> None:
        report["measurements"].append(table.figures(measurement))
        click.echo(table.row(measurement))

    load.run(measure())
    if json_file is not None:
        json_file.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")

"""The options of ``unitvec embed`` that are about files, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitvec.commands.progress import reporter

if TYPE_CHECKING:
    from unitvec.bulk.executor import Executor
    from unitvec.bulk.plan import Settings

F = TypeVar("F", bound=Callable[..., Any])

REJECTS = 3  # the exit status where some rows could not be embedded

_OPTIONS = [
    click.option(
        "--input",
        "-i",
        "inputs",
        multiple=True,
        metavar="FILES",
        help="Embed files: a file, folder or pattern, or - for standard input; may be given several times.",
    ),
    click.option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where their vectors go: a name in .parquet, .jsonl or .npy, or - for JSON lines on standard output.",
    ),
    click.option(
        "--input-format",
        type=click.Choice(["parquet", "jsonl", "csv", "tsv", "lines"]),
        help="Of the files.  [default: as their names say]",
    ),
    click.option("--column", help="The column of Parquet or CSV that holds the text.  [default: text]"),
    click.option("--field", help="The field of JSON lines that holds it; a.b for b within a.  [default: text]"),
    click.option(
        "--carry",
        multiple=True,
        metavar="COLUMN",
        help="Copy a column to the output, * for all; may be given several times.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="Of the numbers in Parquet and .npy.",
    ),
    click.option("--fail-fast", is_flag=True, help="End at the first row that cannot be embedded."),
    click.option("--restart", is_flag=True, help="Begin anew: forget an unfinished run, replace the output."),
    click.option(
        "--window",
        type=click.IntRange(min=1),
        default=4096,
        show_default=True,
        help="Rows that run together; what a killed run may lose.",
    ),
    click.option(
        "--url",
        "urls",
        multiple=True,
        metavar="URL",
        help="Embed files on a running server instead of here; may be given several times.",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(min=0),
        default=120,
        show_default=True,
        help="Seconds that no --url need answer before the run gives up.",
    ),
]


def bulk_options(function: F) -> F:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def asks_for_files(options: dict[str, Any]) -> bool:
    """Whether files are to be embedded.

    Raises:
        click.UsageError: that is not clear.
    """
    if options["inputs"] and options["output"]:
        return True
    if options["inputs"] or options["output"]:
        raise click.UsageError("--input and --output go together: unitvec embed MODEL --input FILES --output FILE")
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in options and context.get_parameter_source(parameter.name) is _TYPED:
            raise click.UsageError(f"{parameter.opts[0]} is for files: give --input and --output with it")
    return False


_TYPED = click.core.ParameterSource.COMMANDLINE


def embed_files(model: str, dimensions: int, truncate: bool, context: int | None, options: dict[str, Any]) -> int:
    """Do what the options ask for.

    Returns:
        The exit status.
    """
    from unitvec.bulk import job

    output = None if options["output"] == "-" else Path(options["output"])
    files = job.files_of(options["inputs"], output)
    settings = _settings(files, options, dimensions, truncate, context)
    wanted = job.Job(model, files, output, settings, restart=options["restart"], strict=options["fail_fast"])

    def start() -> Executor:
        return _executor(model, settings, options)

    return REJECTS if job.execute(wanted, start).refused else 0


def _settings(
    files: list[str], options: dict[str, Any], dimensions: int, truncate: bool, context: int | None
) -> Settings:
    from unitvec.bulk import inputs
    from unitvec.bulk.plan import Settings

    column, field, asked = options["column"], options["field"], options["input_format"]
    if files == [inputs.STDIN] and asked is None and (column or field):
        asked = "jsonl" if field else "csv"
    kind = inputs.kind_of(files, asked)
    if (field and kind != "jsonl") or (column and kind == "jsonl"):
        raise click.UsageError("--field is for JSON lines, --column for Parquet and CSV")
    return Settings(
        input_format=kind,
        column=field or column or "text",
        carry=tuple(dict.fromkeys(options["carry"])),
        window=options["window"],
        dtype=options["dtype"],
        dimensions=dimensions,
        truncate=truncate,
        context=context,
    )


def _executor(model: str, settings: Settings, options: dict[str, Any]) -> Executor:
    how: dict[str, Any] = {
        "truncate": settings.truncate,
        "dimensions": settings.dimensions,
        "context": settings.context,
    }
    if options["urls"]:
        from unitvec.bulk.servers import Servers

        return Servers(options["urls"], model, patience=options["patience"], **how)
    from unitvec import config
    from unitvec.bulk.local import Local
    from unitvec.store.name import Name

    with reporter() as report:
        stored = config.stores().fetch(Name.parse(model), report)
    return Local(stored, **how)

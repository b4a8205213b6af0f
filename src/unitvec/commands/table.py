"""Tables as Ollama prints them: columns side by side, four spaces between."""

from __future__ import annotations

from collections.abc import Sequence

import click


def echo(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Prints rows, the columns left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(f"{indent}{line}".rstrip())

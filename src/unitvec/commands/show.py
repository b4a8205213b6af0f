"""``unitvec show``."""

from __future__ import annotations

from typing import Any

import click

from unitvec import config
from unitvec.commands import client, table
from unitvec.store.name import Name


@click.command()
@click.argument("model")
@click.option("--modelfile", "part", flag_value="modelfile", help="Only the Modelfile.")
@click.option("--parameters", "part", flag_value="parameters", help="Only the parameters.")
@click.option("--template", "part", flag_value="template", help="Only the prompt template.")
@click.option("-v", "--verbose", is_flag=True, help="Metadata and tensors as well.")
def command(model: str, part: str | None, verbose: bool) -> None:
    """Show what MODEL is."""
    told = _told(model)
    if part:
        click.echo(told[part])
        return
    _section("Model", _model(told))
    _section("Capabilities", [(capability,) for capability in told["capabilities"]])
    _section("Parameters", [tuple(line.split(None, 1)) for line in told["parameters"].splitlines()])
    if verbose:
        _section("Metadata", [(key, _short(value)) for key, value in sorted(told["model_info"].items())])
        tensors = [(t["name"], t["type"], "[" + " ".join(map(str, t["shape"])) + "]") for t in told["tensors"]]
        _section("Tensors", tensors)


def _told(model: str) -> dict[str, Any]:
    name = Name.parse(model)
    if server := client.running():
        return dict(server.call("POST", "/api/show", {"model": model}))
    from unitvec.api import describe

    stored = config.stores().get(name)
    return describe.show(stored, stored.open())


def _model(told: dict[str, Any]) -> list[tuple[str, str]]:
    details, info = told["details"], told["model_info"]
    architecture = info.get("general.architecture", details["family"])
    rows = [("architecture", architecture), ("parameters", details["parameter_size"])]
    for label, key in (("context length", "context_length"), ("embedding length", "embedding_length")):
        if (value := info.get(f"{architecture}.{key}")) is not None:
            rows.append((label, str(value)))
    rows.append(("quantization", details["quantization_level"]))
    if "dtype" in told:  # not one of Ollama's
        rows.append(("computes in", told["dtype"]))
    return rows


def _section(title: str, rows: list[Any]) -> None:
    if rows:
        click.echo(f"  {title}")
        table.echo(rows, indent="    ")
        click.echo()


def _short(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

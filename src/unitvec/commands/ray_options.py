"""The options of ``unitvec serve`` that are about a cluster of machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unitvec.commands.setting import setting

if TYPE_CHECKING:
    from unitvec.cluster.scale import Scale

F = TypeVar("F", bound=Callable[..., Any])

_ADDRESS = re.compile(r"(?:|auto|local|(?:ray://)?(?:\[[0-9a-fA-F:]+\]|[^\s/:]+):\d+)")


def _address(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    if value is not None and not _ADDRESS.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no address of a cluster; name models before --ray, or write --ray=auto")
    return value


def ray_option(what: str) -> Callable[[F], F]:
    """``--ray [ADDRESS]``: the address, "" where none is given, None without the option."""
    return click.option(
        "--ray",
        is_flag=False,
        flag_value="",
        metavar="[ADDRESS]",
        callback=_address,
        help=f"{what} over a Ray cluster: HOST:PORT, auto, or local for one of this machine alone; without an "
        "address, the cluster that this machine is part of, else one of its own. Needs unitvec[ray].",
    )


_OPTIONS = [
    ray_option("Serve"),
    setting(
        "--min-replicas",
        "UNITVEC_MIN_REPLICAS",
        "With --ray: replicas, each of --threads x --workers cores, that are always there.",
        type=click.IntRange(min=0),
        default=1,
    ),
    setting(
        "--max-replicas",
        "UNITVEC_MAX_REPLICAS",
        "With --ray: replicas at the busiest.  [default: as many as the cluster has room for]",
        type=click.IntRange(min=1),
    ),
    setting(
        "--target-requests",
        "UNITVEC_TARGET_REQUESTS",
        "With --ray: requests in a replica, on average, from which on there are to be more replicas.",
        type=click.FloatRange(min=0.1),
        default=8,
    ),
    setting(
        "--scale-down-after",
        "UNITVEC_SCALE_DOWN_AFTER",
        "With --ray: seconds that there have been more replicas than needed before one is given up.",
        type=click.FloatRange(min=0),
        default=300,
    ),
]


def ray_options(function: F) -> F:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def scale_of(options: dict[str, Any]) -> Scale:
    """How many replicas the options ask for."""
    least, most = options["min_replicas"], options["max_replicas"]
    if most is not None and most < least:
        raise click.UsageError(f"--max-replicas {most} is less than --min-replicas {least}")
    from unitvec.cluster.scale import Scale

    return Scale(least, most, options["target_requests"], options["scale_down_after"], options["memory"])

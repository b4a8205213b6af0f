"""Options that an environment variable sets as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def setting(flag: str, variable: str, told: str, **more: Any) -> Callable[[F], F]:
    """An option; its help tells the variable and, where there is one to tell, the default.

    Args:
        flag: its name.
        variable: the environment variable.
        told: what it does.
        more: see :func:`click.option`.
    """
    shown = more.get("default") not in (None, "")
    return click.option(flag, envvar=variable, show_envvar=True, show_default=shown, help=told, **more)

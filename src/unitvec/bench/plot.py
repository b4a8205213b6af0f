"""The mix as a picture: a lone query's latency when the server idles and under bulk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unitvec.bench.measure import Mix
from unitvec.errors import UnitvecError

_GREY = "#808890"  # legible on white and on black
_IDLE, _BULK = "#2f9e6e", "#d9722e"
NEEDS_MATPLOTLIB = "a plot needs matplotlib: pip install 'unitvec[bench]'"


def check() -> None:
    """Raise UnitvecError now if :func:`draw` would."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UnitvecError(NEEDS_MATPLOTLIB) from None


def draw(latencies: Mapping[str, tuple[float, float, float, float]], file: Path) -> None:
    """Draw a pair of bars for each server, to ``file`` in the format of its suffix, on no background.

    Args:
        latencies: by the server's name, seconds: p50 and p99 idle, p50 and p99 under bulk.
        file: where to.

    Raises:
        UnitvecError: there is no matplotlib, or it does not know the format.
    """
    check()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.9 + 0.62 * len(latencies)), layout="constrained")
    axes = figure.add_subplot()
    for place, values in enumerate(latencies.values()):
        for offset, colour, p50, p99 in ((-0.19, _IDLE, *values[:2]), (0.19, _BULK, *values[2:])):
            p50, p99 = p50 * 1000, p99 * 1000
            y = place + offset
            axes.barh(y, p50, 0.34, color=colour)
            axes.plot([p50, p99], [y, y], color=colour, linewidth=1.5)
            axes.plot(p99, y, "|", color=colour, markersize=9, markeredgewidth=2)
            axes.annotate(
                f"{_milliseconds(p50)}, p99 {_milliseconds(p99)}", (max(p50, p99), y), (7, 0),
                textcoords="offset points", va="center", fontsize=8, color=_GREY,
            )  # fmt: skip
    highest = max(max(values) for values in latencies.values()) * 1000
    axes.set(xscale="log", ylim=(len(latencies) - 0.5, -0.55))
    axes.set_yticks(range(len(latencies)), list(latencies), fontsize=10)
    axes.set_xticks([1, 10, 100, 1000, 10000], ["1 ms", "10 ms", "100 ms", "1 s", "10 s"])
    axes.set_xlim(1, highest * 9)  # room for the figures
    axes.set_xlabel("a lone query's time (bar: median, mark: p99; logarithmic)", fontsize=9, color=_GREY)
    axes.tick_params(colors=_GREY)
    axes.tick_params(which="minor", bottom=False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(_GREY)
    for colour, label in ((_IDLE, "idle"), (_BULK, "while 4 clients embed in bulk")):
        axes.barh(0, 0, color=colour, label=label)
    axes.legend(frameon=False, labelcolor=_GREY, fontsize=9, loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2)
    try:
        figure.savefig(file, dpi=160, transparent=True)
    except ValueError as error:
        raise UnitvecError(f"cannot draw to {file}: {error}") from None


def latencies(mix: Mix) -> tuple[float, float, float, float]:
    """What :func:`draw` takes."""
    return mix.query_alone.p50, mix.query_alone.p99, mix.query_under_bulk.p50, mix.query_under_bulk.p99


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 20 else f"{value:.1f} ms"

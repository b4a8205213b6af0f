"""unitvec against other servers, in turns: throughput, one by one, and a lone query under bulk.

    bench/peers/install.sh VENVS MODEL_FOLDER
    python bench/against_peers.py VENVS MODEL_FOLDER [--gguf FILE] [--json FILE] [--plot FILE]

MODEL_FOLDER is all-minilm as sentence-transformers saves it: unitvec's data folder has it under folders/.
All servers run at once and idle while another is measured. Each round measures each of them once;
figures are medians of the rounds, and what counts is unitvec's ratio to the others. Whoever has no
virtual environment in VENVS, or does not start, is left out and said to be.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from servers import Figures, Others, Recipe, quietest, started, write_report
from unitvec import config
from unitvec.bench import load, plot
from unitvec.bench.measure import Bench
from unitvec.bench.texts import Texts
from unitvec.errors import UnitvecError

# what is measured -> (kind of text, clients, texts a request)
THROUGHPUT = {
    "16 clients x 1 short, texts/s": ("short", 16, 1),
    "1 client x 64 short, texts/s": ("short", 1, 64),
    "16 clients x 1 passage, texts/s": ("passages", 16, 1),
    "1 client x 64 passages, texts/s": ("passages", 1, 64),
}
HERE = Path(__file__).parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def recipes(venvs: Path, folder: Path, gguf: Path | None) -> list[Recipe]:
    """unitvec, and the others that are installed."""
    infinity = [
        str(venvs / "infinity/bin/infinity_emb"), "v2", "--served-model-name", "all-minilm", "--device", "cpu",
        "--host", "127.0.0.1", "--port", "{port}", "--url-prefix", "/v1", "--log-level", "warning",
    ]  # fmt: skip
    torch = [*infinity, "--engine", "torch", "--no-bettertransformer", "--model-id", str(folder)]
    optimum = [*infinity, "--engine", "optimum", "--model-id", str(venvs / "onnx")]
    handler = [str(venvs / "fastapi/bin/python"), str(HERE / "peers/fastapi_handler.py"), str(folder), "{port}"]
    llama = [str(venvs / "llamacpp/bin/python"), str(HERE / "peers/llama_server.py"), str(gguf), "{port}",
             str(config.available_cores())]  # fmt: skip
    unitvec = [sys.executable, "-m", "unitvec", "serve", "all-minilm", "--host", "127.0.0.1:{port}"]
    found = [Recipe("unitvec", "ollama", "all-minilm", unitvec)]
    for recipe in (
        Recipe("infinity, torch", "openai", "all-minilm", torch, OFFLINE),
        Recipe("infinity, onnxruntime", "openai", "all-minilm", optimum, OFFLINE),
        Recipe("llama.cpp, F16", "openai", "all-minilm", llama),
        Recipe("FastAPI handler", "tei", "all-minilm", handler, OFFLINE),
    ):
        needed = [recipe.command[0], *(part for part in recipe.command if part.startswith(str(venvs)))]
        if all(Path(part).exists() for part in needed) and (gguf or "llama" not in recipe.name):
            found.append(recipe)
        else:
            print(f"{recipe.name}: not installed, left out")
    return found


def throughput(bench: Bench, name: str, seconds: float) -> Figures:
    measured = load.run(bench.closed(*THROUGHPUT[name], seconds))
    assert not measured.errors, measured.failures
    return {name: measured.texts_per_second}


def one_by_one(bench: Bench, seconds: float) -> Figures:
    one = load.run(bench.closed("short", 1, 1, seconds))
    return {"one by one, p50 ms": one.p50 * 1000, "one by one, p99 ms": one.p99 * 1000}


def mix(bench: Bench, seconds: float) -> Figures:
    measured = load.run(bench.mix(3 * seconds))
    names = ("idle, p50 ms", "idle, p99 ms", "under bulk, p50 ms", "under bulk, p99 ms")
    figures = dict(zip(names, (1000 * x for x in plot.latencies(measured)), strict=True))
    return figures | {
        "bulk alone, texts/s": measured.bulk_alone.texts_per_second,
        "bulk with the query, texts/s": measured.bulk_with_query.texts_per_second,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venvs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, help="all-minilm for llama.cpp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mix-rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="time for each measurement, about")
    parser.add_argument("--quiet", type=float, default=0.1, help="share of the machine that others may take")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    if asked.plot:
        plot.check()
    with ExitStack() as stack:
        servers: dict[str, Bench] = {}
        groups = []
        for recipe in recipes(asked.venvs, asked.folder, asked.gguf):
            try:
                servers[recipe.name], group = stack.enter_context(started(recipe, Texts(2)))
                groups.append(group)
            except UnitvecError as error:
                print(f"{recipe.name}: left out: {error.message}")
        cases = [(partial(throughput, name=name), asked.rounds) for name in THROUGHPUT]
        cases += [(one_by_one, asked.rounds), (mix, asked.mix_rounds)]
        rounds: dict[str, list[list[Figures]]] = {name: [[] for _ in cases] for name in servers}
        others = Others(groups)
        for bench in servers.values():  # fills buffers
            throughput(bench, "16 clients x 1 short, texts/s", asked.seconds)
        for number in range(max(asked.rounds, asked.mix_rounds)):
            for place, (case, times) in enumerate(cases):
                for name, bench in servers.items() if number < times else ():
                    busy, figures = quietest(partial(case, bench, seconds=asked.seconds), others, asked.quiet)
                    rounds[name][place].append(figures | {f"others, share of the machine, {place}": busy})
            print(f"round {number + 1}", flush=True)
    medians = {name: _medians(of) for name, of in rounds.items()}
    print(table(medians))
    if asked.json:
        write_report(asked.json, medians=medians, rounds=rounds)
    if asked.plot:
        names = ("idle, p50 ms", "idle, p99 ms", "under bulk, p50 ms", "under bulk, p99 ms")
        plot.draw({name: tuple(of[key] / 1000 for key in names) for name, of in medians.items()}, asked.plot)


def _medians(cases: list[list[Figures]]) -> Figures:
    return {name: median(figures[name] for figures in case) for case in cases for name in (case[0] if case else ())}


def table(medians: dict[str, Figures]) -> str:
    """In Markdown; in brackets how unitvec compares: times as fast."""
    ours = medians["unitvec"]
    lines = ["| | " + " | ".join(medians) + " |", "|---|" + "---:|" * len(medians)]
    for what in ours:
        if what.startswith("others"):
            continue
        cells = []
        for name, figures in medians.items():
            value = figures[what]
            better = value / ours[what] if what.endswith("ms") and ours[what] else ours[what] / value if value else 0
            compare = name != "unitvec" and what.endswith(("ms", "texts/s"))
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"
            cells.append(f"{shown} ({better:.1f} x)" if compare else shown)
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

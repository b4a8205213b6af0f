"""A server offered ten times what it can do, for a minute: memory, and the latency of those it lets in.

    python bench/overload.py [--seconds 60] [--times 10] [--queue 256]

Full load is as many clients as the queue holds, each waiting for its answer: the server is always busy and
turns nobody away. Overload is requests that arrive at a multiple of that throughput, whatever becomes of them.
Prints latencies of those let in, how many were turned away and how soon, and the server's memory each second.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from servers import Recipe, started
from unitvec.bench import load
from unitvec.bench.client import Connection
from unitvec.bench.measure import Bench
from unitvec.bench.texts import Texts


def resident(group: int) -> float:
    """MiB that the server takes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{group}/status").read_text())
    assert found
    return int(found[1]) / 1024


async def overload(
    bench: Bench, rate: float, seconds: float, group: int
) -> tuple[list[tuple[int, float]], list[float]]:
    """(status, seconds) of each request, and the server's memory, second by second.

    The requests are few and sent again and again, so that the load takes little of the machine; each
    carries a number that makes its text new.
    """
    found: list[tuple[int, float]] = []
    memory: list[float] = []
    idle: list[Connection] = []
    loop = asyncio.get_running_loop()
    began = loop.time()

    places = asyncio.Semaphore(load.MAX_CONNECTIONS)  # while all are taken, what comes waits uncounted

    async def one(body: bytes) -> None:
        async with places:
            connection = idle.pop() if idle else Connection(bench.endpoint, 300)
            reply = await connection.post(body)
            idle.append(connection)
        found.append((reply.status, reply.ended - reply.began))

    bodies = bench.requests("short", 1, 500)
    sent = 0
    async with asyncio.TaskGroup() as group_of_requests:
        while (now := loop.time() - began) < seconds:
            for _ in range(0 if places.locked() else round(now * rate) - sent):
                body = bodies[sent % len(bodies)].texts[0]
                group_of_requests.create_task(one(bench.request([f"{body} {sent}"]).body))
                sent += 1
            if len(memory) <= now:
                memory.append(resident(group))
            await asyncio.sleep(0.005)
    for connection in idle:
        connection.close()
    return found, memory


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--queue", type=int, default=256)
    asked = parser.parse_args()
    texts = Texts(1)
    command = [sys.executable, "-m", "unitvec", "serve", "all-minilm", "--host", "127.0.0.1:{port}"]
    command += ["--max-queue", str(asked.queue)]
    with started(Recipe("unitvec", "ollama", "all-minilm", command), texts) as (bench, group):
        load.run(bench.closed("short", asked.queue, 1, 3))
        full = load.run(bench.closed("short", asked.queue, 1, 15))
        print(f"full load, {asked.queue} clients: {full.texts_per_second:.0f} texts/s, p50 {full.p50:.2f} s, "
              f"p99 {full.p99:.2f} s, errors {full.errors}, {resident(group):.0f} MiB")  # fmt: skip
        found, memory = load.run(overload(bench, asked.times * full.texts_per_second, asked.seconds, group))
        admitted = [seconds for status, seconds in found if status == 200]
        turned = [seconds for status, seconds in found if status == 503]
        p50, p99 = np.percentile(admitted, [50, 99])
        print(f"{asked.times:g} times that, {asked.seconds:g} s: {len(admitted) / asked.seconds:.0f} texts/s, "
              f"p50 {p50:.2f} s, p99 {p99:.2f} s = {p99 / full.p99:.2f} x that of full load")  # fmt: skip
        print(f"turned away: {len(turned)} of {len(found)}, p50 {np.median(turned) * 1000:.0f} ms; "
              f"answers: {dict(Counter(status for status, _ in found))}")  # fmt: skip
        early, late = np.mean(memory[:10]), np.mean(memory[-10:])
        print(f"memory: {early:.0f} MiB in the first seconds, {late:.0f} MiB in the last, at most {max(memory):.0f}")


if __name__ == "__main__":
    main()

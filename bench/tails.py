"""How long the slowest requests wait on 10, 100 and 1,000 machines: a simulation with measured numbers put in.

    python bench/tails.py [--speed 7500] [--hop 1.5] [--seconds 3]      # about three minutes

A machine runs micro-batches of about 25 ms at --speed tokens/s, as serving/batcher.py does: whenever it is free
and anything waits, it takes queries first, then fills up with bulk. Queries of 35 tokens and passages of 150 (in
batches of 32, one request each) arrive at random times; half of the tokens are bulk. A door sees a replica's
queue as Serve's router does: exact for what it sent itself, for the rest as of the replica's last answer to it.
It picks the shortest of all it sees, the shorter of two drawn at random, or any. Some machines stall now and
then, as shared ones do. Every request pays --hop ms for the way there and back.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

import numpy as np

BATCH = 0.025  # seconds of a micro-batch
QUERY, PASSAGES = 35, 32 * 150  # tokens of a request


@dataclass
class Machine:
    """A replica: what waits there, and whether it runs."""

    queries: deque[tuple[float, int, int]] = field(default_factory=deque)  # since, door, tokens
    bulk: deque[list[float]] = field(default_factory=deque)  # [since, door, tokens left]
    busy: bool = False
    queue: int = 0


def simulate(
    machines: int,
    doors: int,
    load: float,
    policy: str,
    *,
    speed: float,
    hop: float,
    requests: int,
    stalls: float,
    seed: int,
) -> np.ndarray:
    """Seconds that each query took, [queries].

    Args:
        machines: replicas.
        doors: that each see their own part of the traffic.
        load: share of the machines' tokens/s that is asked for.
        policy: "shortest", "two" or "any".
        speed: tokens/s of a machine.
        hop: seconds on the way.
        requests: queries to simulate.
        stalls: share of micro-batches that take ten times as long.
        seed: of the chances.
    """
    rng = np.random.default_rng(seed)
    full = int(speed * BATCH)
    tokens_per_second = load * speed * machines / 2  # of each kind
    query_gap, bulk_gap = QUERY / tokens_per_second, PASSAGES / tokens_per_second
    all_machines = [Machine() for _ in range(machines)]
    seen = np.zeros((doors, machines), np.int32)
    serial = itertools.count()
    events: list[tuple[float, int, str, int, object]] = []

    def at(when: float, what: str, machine: int = 0, more: object = None) -> None:
        heapq.heappush(events, (when, next(serial), what, machine, more))

    def choose(door: int) -> int:
        if policy == "any":
            return int(rng.integers(machines))
        if policy == "two":
            one, other = rng.integers(machines, size=2)
            return int(one if seen[door, one] <= seen[door, other] else other)
        row = seen[door]
        return int(rng.choice(np.flatnonzero(row == row.min())))

    def start(now: float, index: int) -> None:
        machine = all_machines[index]
        room, done = full, []
        while machine.queries and room > 0:
            done.append(machine.queries.popleft())
            room -= QUERY
        while machine.bulk and room > 0:
            first = machine.bulk[0]
            run = min(room, first[2])
            first[2] -= run
            room -= int(run)
            if first[2] <= 0:
                machine.bulk.popleft()
                done.append((first[0], int(first[1]), PASSAGES))
        machine.busy = room < full
        if machine.busy:
            took = (full - room) / speed * (10 if rng.random() < stalls else 1)
            at(now + took, "ran", index, done)

    at(rng.exponential(query_gap), "query")
    at(rng.exponential(bulk_gap), "bulk")
    latencies: list[float] = []
    while len(latencies) < requests:
        now, _, what, index, more = heapq.heappop(events)
        if what in ("query", "bulk"):
            door = int(rng.integers(doors))
            chosen = choose(door)
            seen[door, chosen] += 1
            at(now + hop / 2, "come", chosen, (what, now, door))
            at(now + rng.exponential(query_gap if what == "query" else bulk_gap), what)
        elif what == "come":
            kind, since, door = more  # type: ignore[misc]
            machine = all_machines[index]
            machine.queue += 1
            if kind == "query":
                machine.queries.append((since, door, QUERY))
            else:
                machine.bulk.append([since, door, PASSAGES])
            if not machine.busy:
                start(now, index)
        else:
            for since, door, tokens in more:  # type: ignore[attr-defined]
                all_machines[index].queue -= 1
                seen[door, index] = all_machines[index].queue  # the answer tells
                if tokens == QUERY:
                    latencies.append(now + hop / 2 - since)
            start(now, index)
    return np.array(latencies[requests // 4 :])  # the queues have filled by then


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=7500, help="tokens/s of a machine")
    parser.add_argument("--hop", type=float, default=1.5, help="ms that door, network and hand-over add")
    parser.add_argument(
        "--stalls", type=float, default=0.001, help="share of micro-batches that take ten times as long"
    )
    parser.add_argument("--requests", type=int, default=30_000, help="queries of each line, at least")
    parser.add_argument("--seconds", type=float, default=3, help="that each line simulates, at least")
    parser.add_argument("--machines", type=int, action="append", help="only so many; may be given several times")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    fixed = {"speed": asked.speed, "hop": asked.hop / 1000, "stalls": asked.stalls, "seed": asked.seed}
    print("machines  doors  load  policy      p50 ms   p99 ms  p99.9 ms")
    sizes = ((10, 1), (10, 10), (100, 10), (1000, 10), (1000, 100))
    for machines, doors in (size for size in sizes if not asked.machines or size[0] in asked.machines):
        for load in (0.5, 0.8):
            for policy in ("any", "two", "shortest"):
                rate = load * asked.speed * machines / 2 / QUERY
                requests = max(asked.requests, round(rate * asked.seconds))
                found = simulate(machines, doors, load, policy, requests=requests, **fixed) * 1000
                p50, p99, p999 = np.percentile(found, [50, 99, 99.9])
                print(
                    f"{machines:8}  {doors:5}  {load:4.1f}  {policy:8}  {p50:8.1f} {p99:8.1f}  {p999:8.1f}", flush=True
                )


if __name__ == "__main__":
    main()

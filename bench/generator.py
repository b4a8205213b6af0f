"""The load generator's own cost: how fast it goes when the server does nothing.

    python bench/generator.py

A process of its own answers every request at once with the same bytes, so what is left is the
generator. It may not be what limits a measurement.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time

import orjson

from servers import free_port
from unitvec.bench import load
from unitvec.bench.measure import Bench
from unitvec.bench.texts import Texts
from unitvec.errors import UnitvecError

WIDTH = 384


def answer(texts: int) -> bytes:
    vector = [1.0, *[-0.012345678] * (WIDTH - 1)]
    body = orjson.dumps({"embeddings": [vector] * texts, "prompt_eval_count": texts})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWERS = {texts: answer(texts) for texts in (1, 64)}


class Canned(asyncio.Protocol):
    """Answers each request once its last byte is there. Every text has one ``","`` before or behind it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.data.endswith(b"]}"):
            self.transport.write(ANSWERS[self.data.count(b'","')])
            self.data = b""


def serve(port: int) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", port)
        await server.serve_forever()

    load.run(forever())


async def main(port: int) -> None:
    bench = Bench(f"http://127.0.0.1:{port}", "ollama", "canned", Texts(0))
    for _ in range(100):
        try:
            await bench.probe()
            break
        except UnitvecError:
            await asyncio.sleep(0.1)
    print(f"{'clients':>7} {'batch':>6} {'requests/s':>11} {'us of processor a request':>26}")
    for clients, batch, count in ((1, 1, 5000), (16, 1, 10000), (256, 1, 10000), (1, 64, 1000)):
        measured = await bench.closed_of("short", bench.requests("short", batch, count), clients)
        rate, cost = measured.requests / measured.seconds, measured.client_seconds / measured.requests * 1e6
        print(f"{clients:>7} {batch:>6} {rate:>11,.0f} {cost:>26.0f}")


if __name__ == "__main__":
    port = free_port()
    process = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    process.start()
    time.sleep(0.1)
    try:
        load.run(main(port))
    finally:
        process.terminate()

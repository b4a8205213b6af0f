"""How fast models come from a registry on this machine, beside `curl | sha256sum`, and how fast stores are listed.

    python bench/pull.py [MEGABYTES]

Needs curl, sha256sum and Debian's docker-registry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "store"))

from real_registry import publish, running_registry, sha256

from unitvec.store.name import Name
from unitvec.store.stores import Stores

ROUNDS = 5
MODELS = 1000


def best(work: Callable[[int], object]) -> float:
    times = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - began)
    return min(times)


def measure_pull(root: Path, megabytes: int) -> None:
    weights = os.urandom(megabytes << 20)
    digest = sha256(weights)
    with running_registry(root) as host:
        publish(host, "library/m", "latest", {"application/vnd.ollama.image.model": weights})
        del weights
        url = f"http://{host}/v2/library/m/blobs/{digest}"
        name = Name.parse(f"http://{host}/library/m")
        command = f"curl -s --noproxy '*' {url} | sha256sum"
        piped = best(lambda _: subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL))
        command = f"curl -s --noproxy '*' {url} -o {root / 'curl'} && sync {root / 'curl'}"
        saved = best(lambda _: subprocess.run(command, shell=True, check=True))
        pulled = best(lambda n: Stores(root / "data", root / f"ollama{n}").pull(name, insecure=True))
    for label, seconds in (("curl | sha256sum", piped), ("curl > file; sync", saved), ("unitvec pull", pulled)):
        print(f"{label:<20} {seconds:6.2f} s  {megabytes / seconds:7.0f} MiB/s  {100 * piped / seconds:4.0f} %")


def measure_list(root: Path) -> None:
    blobs, manifests = root / "many" / "blobs", root / "many" / "manifests" / "registry.ollama.ai" / "library"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = sha256(data)
        (blobs / digest.replace(":", "-")).write_bytes(data)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": len(data)}

    for number in range(MODELS):
        layers = [blob("model", b"GGUF%d" % number), blob("params", b'{"num_ctx":%d}' % number)]
        folder = manifests / f"model-{number}"
        folder.mkdir(parents=True)
        described = {"schemaVersion": 2, "config": blob("config", b"{}"), "layers": layers}
        (folder / "latest").write_text(json.dumps(described))
    listed = best(lambda _: Stores(root / "data", root / "many").list())
    stores, name = Stores(root / "data", root / "many"), Name.parse("model-7")
    found = best(lambda _: [stores.find(name) for _ in range(100)]) / 100
    print(f"list of {MODELS} models: {listed * 1000:.0f} ms; one found: {found * 1e6:.0f} us")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        measure_pull(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 256)
        measure_list(Path(folder))

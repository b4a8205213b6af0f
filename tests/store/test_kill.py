"""A pull that is killed at random moments, again and again, ends well."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from real_registry import LAYERS, WEIGHTS, Proxy, sha256

from unitvec.store.ollama import OllamaStore

PULL = """
import sys
from pathlib import Path
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.pull import pull
store = OllamaStore(Path(sys.argv[2]))
pull(Name.parse(sys.argv[1]), store, lambda step: print(step.completed, flush=True), insecure=True)
"""


def test_twenty_kills(tmp_path: Path, proxy: Proxy) -> None:
    chance = random.Random(3)
    proxy.faults.rate = 2e6  # bytes a second and range: the whole takes longer than all lives together
    store = OllamaStore(tmp_path)
    command = [sys.executable, "-c", PULL, f"http://{proxy.host}/library/m", str(tmp_path)]
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in store.blobs.root.glob("sha256-" + "?" * 64):
            assert sha256(path.read_bytes()) == path.name.replace("-", ":"), "nothing unverified has a name"
    proxy.faults.rate = None
    before = proxy.blob_bytes
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert proxy.blob_bytes - before < 0.9 * len(WEIGHTS), "what had come was fetched again"
    names = {path.name for path in store.blobs.root.iterdir() if not path.name.startswith(".tmp-")}
    assert names == {sha256(data).replace(":", "-") for data in (*LAYERS.values(), b"{}")}
    assert len(store.list()) == 1
    assert not list(tmp_path.glob(".unitvec-claims*")), "the dead claim nothing"

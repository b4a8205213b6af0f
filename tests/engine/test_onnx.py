from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import OrtValue

from tests.models import tiny
from unitvec import pages
from unitvec.checkpoint import gguf
from unitvec.checkpoint.checkpoint import Tensors
from unitvec.engine import memory, stages
from unitvec.engine.onnx import Engine
from unitvec.engine.packing import pack
from unitvec.engine.stage import LoadedStage, Values
from unitvec.errors import InvalidCheckpoint


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.qwen3().write(tmp_path_factory.mktemp("engine") / "model.gguf", "Q8_0")


def test_pack() -> None:
    batch = pack([[5, 6, 7, 8, 9], [1]], block=2)
    assert batch["ids"].tolist() == [5, 6, 7, 8, 9, 1]
    assert batch["texts"].tolist() == [0, 0, 0, 0, 0, 1]
    assert batch["positions"].tolist() == [0, 1, 2, 3, 4, 0]
    assert batch["spread"].shape == (2, 5)
    assert batch["blocks"].shape == (3, 2, 2)
    assert batch["block_places"].tolist() == [[0, 1], [2, 3], [4, 5]]
    rows = batch["blocks"].reshape(-1)[batch["slots"]]
    assert rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_kept_graph_starts_without_the_graph_builder(file: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from unitvec.checkpoint import gguf
from unitvec.engine.onnx import Engine
checkpoint = gguf.read(Path({str(file)!r}))
engine = Engine(checkpoint.spec, checkpoint.tensors, threads=1, cache_dir=Path({str(tmp_path)!r}))
print(engine.run([[4, 5]])[0, :4].tolist(), "onnxscript" in sys.modules, "gguf" in sys.modules)
"""
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(2)]
    vectors = [run.stdout.decode().split("]")[0] for run in runs]
    assert vectors[0] == vectors[1]
    assert [run.stdout.decode().split("]")[1].split() for run in runs] == [["True", "False"], ["False", "False"]]


def copies(path: Path) -> tuple[Tensors, dict[str, np.ndarray]]:
    """A file's weights, and a look at what an engine was given of them."""
    tensors = gguf.read(path).tensors
    given: dict[str, np.ndarray] = {}

    def give(name: str) -> np.ndarray:
        return given.setdefault(name, np.array(tensors[name]))

    return Tensors({name: partial(give, name) for name in tensors}), given


@pytest.mark.skipif(sys.platform != "linux", reason="gives memory back on Linux only")
def test_weights_are_held_once(file: Path) -> None:
    checkpoint = gguf.read(file)
    tensors, given = copies(file)
    engine = Engine(checkpoint.spec, tensors, threads=1)
    assert engine.resident_bytes == sum(array.nbytes for array in given.values())
    before = engine.run([[4, 5, 6]])
    for array in given.values():
        array[...] = 1
    assert np.array_equal(engine.run([[4, 5, 6]]), before)


def test_weights_that_are_still_read_are_put_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that reads the bound arrays on every run, as other versions of onnxruntime may."""
    checkpoint = gguf.read(file)
    want = {name: np.array(checkpoint.tensors[name]) for name in checkpoint.tensors}
    tensors = Tensors({name: partial(np.array, checkpoint.tensors[name]) for name in checkpoint.tensors})

    def zero(arrays: Iterable[np.ndarray]) -> bool:
        for array in arrays:
            array[...] = 0
        return True

    sums: list[np.ndarray] = []

    def run(self: LoadedStage, *_: object) -> Values:
        sums.append(np.array([float(array.sum()) for array in self.weights.values()]))
        return {"embeddings": OrtValue.ortvalue_from_numpy(sums[-1])}

    monkeypatch.setattr(pages, "release", zero)
    monkeypatch.setattr(LoadedStage, "run", run)
    engine = Engine(checkpoint.spec, tensors, threads=1)
    (stage,) = engine._stages
    assert all(np.array_equal(stage.weights[name], want[name]) for name in want)
    assert engine.resident_bytes == 2 * sum(array.nbytes for array in want.values())


@pytest.mark.parametrize("make", [tiny.bert, tiny.qwen3, tiny.gemma3])
def test_a_model_in_stages_is_the_same_model(
    make: Callable[[], tiny.Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = gguf.read(make().write(tmp_path / "model.gguf", "BF16"))
    texts = [[4, 5, 6], list(range(40)), [1]]
    whole = Engine(checkpoint.spec, checkpoint.tensors, threads=1)
    monkeypatch.setattr(stages, "_SMALLEST", 0)
    monkeypatch.setattr(stages, "_WHOLE", 0)
    parts = Engine(checkpoint.spec, checkpoint.tensors, threads=1, cache_dir=tmp_path)
    assert len(parts._stages) >= 3
    assert parts.resident_bytes == whole.resident_bytes
    kept = Engine(checkpoint.spec, checkpoint.tensors, threads=1, cache_dir=tmp_path)
    for engine in (parts, kept):
        np.testing.assert_allclose(engine.run(texts), whole.run(texts), rtol=1e-5, atol=1e-6)


def test_arrays_that_somebody_else_holds_stay_as_they_are(file: Path) -> None:
    checkpoint = gguf.read(file)
    mine = {name: np.array(checkpoint.tensors[name]) for name in checkpoint.tensors}
    before = {name: array.copy() for name, array in mine.items()}
    Engine(checkpoint.spec, mine, threads=1).run([[4]])
    assert all(np.array_equal(mine[name], before[name]) for name in mine)


def test_wrong_weights_are_refused(file: Path) -> None:
    checkpoint = gguf.read(file)
    weights = dict(checkpoint.tensors)
    with pytest.raises(InvalidCheckpoint, match=r"lack 'norm\.weight'"):
        Engine(checkpoint.spec, {k: v for k, v in weights.items() if k != "norm.weight"}, threads=1)
    with pytest.raises(InvalidCheckpoint, match=r"'norm\.weight' is float32 \[3\]"):
        Engine(checkpoint.spec, weights | {"norm.weight": np.zeros(3, np.float32)}, threads=1)
    with pytest.raises(InvalidCheckpoint, match="is float64"):
        Engine(checkpoint.spec, weights | {"norm.weight": np.zeros(tiny.WIDTH)}, threads=1)


def test_several_threads_may_run_it_at_once(file: Path) -> None:
    checkpoint = gguf.read(file)
    engine = Engine(checkpoint.spec, checkpoint.tensors, threads=1)
    texts = [[[4 + n, 5, 6]] for n in range(8)]
    want = [engine.run(text) for text in texts]
    got: dict[int, list[np.ndarray]] = {}

    def work(number: int) -> None:
        got[number] = [engine.run(texts[number]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(vector, want[n]) for n in range(8) for vector in got[n])


def test_the_footprint_grows_no_faster_than_the_text_where_scores_would_square(file: Path) -> None:
    spec = gguf.read(file).spec
    one, eight = memory.footprint(spec, 1, 20_000, 20_000), memory.footprint(spec, 1, 160_000, 160_000)
    assert one < eight < 9 * one
    assert memory.footprint(spec, 2, 100, 200) < memory.footprint(spec, 8, 100, 800)
    assert memory.footprint(spec, 2, 1000, 1010) > memory.footprint(spec, 2, 505, 1010)  # padding counts


_PEAK = """
import re, resource, sys
from pathlib import Path
import numpy as np
from unitvec.checkpoint import gguf
from unitvec.engine import memory
from unitvec.engine.onnx import Engine
checkpoint = gguf.read(Path(sys.argv[1]))
engine = Engine(checkpoint.spec, checkpoint.tensors, threads=2)
engine.run([[4] * 64])
now = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
length = 12_000
before = now()
engine.run([np.full(length, 5)])
# Not ru_maxrss: that begins with what the process had which started this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
print(peak - before, now() - before, memory.footprint(checkpoint.spec, 1, length, length), 4 * 4 * length**2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_long_texts_run_in_bounded_memory_and_give_it_back(file: Path) -> None:
    run = subprocess.run([sys.executable, "-c", _PEAK, file], capture_output=True, check=True)
    peak, kept, footprint, scores = map(int, run.stdout.split())
    assert scores > 2 << 30  # what attention at once would take
    assert peak < 1.5 * footprint + (64 << 20)
    assert kept < 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="where it keeps its identity elsewhere is not known")
def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", "import unitvec.engine.onnx"]
    subprocess.run(command, check=True, env=kept | {"HOME": str(tmp_path)})
    assert list(tmp_path.rglob("*")) == []  # it would have made an identity for this machine

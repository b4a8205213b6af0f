"""The int8 mode on a processor that was not made for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

import unitvec
from tests.conftest import need

SCRIPT = """
import sys, numpy, unitvec
with unitvec.load(sys.argv[1], dtype="int8") as model:
    print(model.dtype, *model.embed("Why is the sky blue?")[0])
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="qemu-x86_64 runs programs for x86_64")
def test_without_vnni_a_model_runs_in_float32(all_minilm: str) -> None:
    """AVX2's sums of 8-bit products saturate at 16 bits: what comes out would be wrong, and no error would say so."""
    need("qemu-x86_64", "THE INT8 MODE ON OLDER PROCESSORS IS", package="qemu-user")
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", SCRIPT, all_minilm]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "not faster in int8, or not exact: models run in float32" in done.stderr
    dtype, *numbers = done.stdout.split()
    assert dtype == "float32"
    with unitvec.load(all_minilm) as model:
        assert np.abs(model.embed("Why is the sky blue?")[0] - np.array(numbers, np.float32)).max() < 1e-6

from __future__ import annotations

import gguf
import numpy as np
import pytest

from unitvec.checkpoint.ggml import FORMATS, dequantize

# Where a block keeps its float16 scales: random bytes there would be infinities.
SCALES = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
}  # fmt: skip


@pytest.mark.parametrize("number", FORMATS)
def test_numbers_are_those_that_llama_cpp_s_package_reads(number: int) -> None:
    form = FORMATS[number]
    rng = np.random.default_rng(number)
    if form.numbers == 1:
        raw = rng.standard_normal(24 * 512).astype(np.float32)
        raw = gguf.quants.quantize(raw, gguf.GGMLQuantizationType(number)).view(np.uint8).reshape(-1, form.bytes)
    else:
        raw = rng.integers(0, 256, (24 * 512 // form.numbers, form.bytes), dtype=np.uint8)
        for at in SCALES[form.name]:
            raw[:, at : at + 2] = rng.standard_normal((len(raw), 1)).astype(np.float16).view(np.uint8)
    packed = raw.reshape(-1)
    whole = packed.view({"F32": np.float32, "F16": np.float16}.get(form.name, np.uint8))
    want = gguf.quants.dequantize(whole, gguf.GGMLQuantizationType(number)).reshape(24, 512)
    got = dequantize(form, packed, (24, 512))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_every_format_has_llama_cpp_s_name_and_size() -> None:
    for number, form in FORMATS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert form.name == kind.name
        assert (form.numbers, form.bytes) == gguf.GGML_QUANT_SIZES[kind]

"""Whether this processor multiplies in 8 bits to advantage: tried once a process, in some tenths of a second.

Without instructions made for it (VNNI, AMX, i8mm) sums of 8-bit products may saturate at 16 bits, or take longer than
float32's.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

_ROWS, _INPUTS, _OUTPUTS = 128, 512, 512
_PAYS = 1.5  # a product alone must be that much faster: quantizing comes on top
_TRIES = 9


@cache
def multiplies_int8() -> bool:
    """Products of uint8 and int8 are exact here, and faster than those of float32."""
    from onnx import TensorProto, helper, numpy_helper

    def session(operator: str, weights: npt.NDArray[np.generic], given: int, made: int) -> ort.InferenceSession:
        graph = helper.make_graph(
            [helper.make_node(operator, ["x", "w"], ["y"])],
            operator,
            [helper.make_tensor_value_info("x", given, [_ROWS, _INPUTS])],
            [helper.make_tensor_value_info("y", made, [_ROWS, _OUTPUTS])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def seconds(session: ort.InferenceSession, x: npt.NDArray[np.generic]) -> float:
        times = []
        for _ in range(_TRIES):
            began = time.perf_counter()
            session.run(None, {"x": x})
            times.append(time.perf_counter() - began)
        return min(times)

    # The largest numbers that there are: sums of two products pass 16 bits.
    activations, weights = np.full((_ROWS, _INPUTS), 255, np.uint8), np.full((_INPUTS, _OUTPUTS), 127, np.int8)
    small = session("MatMulInteger", weights, TensorProto.UINT8, TensorProto.INT32)
    if (np.asarray(small.run(None, {"x": activations})[0]) != 255 * 127 * _INPUTS).any():
        return False
    large = session("MatMul", weights.astype(np.float32), TensorProto.FLOAT, TensorProto.FLOAT)
    return _PAYS * seconds(small, activations) < seconds(large, activations.astype(np.float32))

"""One stage of a model in memory: an onnxruntime session and the weights bound to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unitvec import pages
from unitvec.checkpoint.checkpoint import Tensors
from unitvec.engine import graph
from unitvec.errors import InvalidCheckpoint

Weights = Mapping[str, npt.NDArray[np.generic]]
Values = dict[str, ort.OrtValue]


class LoadedStage:
    """A stage that runs.

    Args:
        built: its graph.
        weights: as :func:`bind` gives them; the session may read them for as long as it lives.
        threads: cores that one run uses.
        spin: whether they wait for each other awake.
    """

    def __init__(self, built: graph.Stage, weights: Weights, threads: int, *, spin: bool) -> None:
        self.built = built
        self.inputs = built.inputs
        self.weights = weights
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors come as exceptions
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        else:  # but not when it is done: others want the cores at once, the next stage first of all
            options.add_session_config_entry("session.force_spinning_stop", "1")
        bound = [_ort_value(built.parameters[name][0], array) for name, array in self.weights.items()]
        options.add_external_initializers(list(self.weights), bound)
        self._session = ort.InferenceSession(built.onnx, options, providers=["CPUExecutionProvider"])

    def run(self, values: Values, options: ort.RunOptions | None = None) -> Values:
        """The values that the stage gives; ``values`` has those that it takes."""
        feeds = {name: values[name] for name in self.inputs}
        results = self._session.run_with_ort_values(self.built.outputs, feeds, options)
        return dict(zip(self.built.outputs, results, strict=True))

    def settle(self, own: Tensors | None, probe: Values) -> int:
        """Give back weights of which the session has copies of its own.

        Which those are is a matter of onnxruntime's version, so that it is tried: the outputs must not change.

        Args:
            own: where the weights came from, if nobody else holds them.
            probe: the stage's inputs for some text.

        Returns:
            Bytes that the weights take from now on.
        """
        groups = self.built.packed, [name for name in self.weights if name not in self.built.packed]
        held = [name for names in groups if not self._release(names, own, probe) for name in names]
        sizes = {name: array.nbytes for name, array in self.weights.items()}
        return sum(sizes.values()) + sum(sizes[name] for name in held)

    def _release(self, names: list[str], own: Tensors | None, probe: Values) -> bool:
        if own is None:
            return False
        before = {name: np.array(value.numpy()) for name, value in self.run(probe).items()}
        if not any(value.any() for value in before.values()):
            return False
        if not pages.release(self.weights[name] for name in names):
            return False
        after = self.run(probe)
        if all(np.array_equal(after[name].numpy(), value, equal_nan=True) for name, value in before.items()):
            return True
        for name in names:
            if self.weights[name].flags.writeable:  # others are views into a file, which is still there
                self.weights[name][...] = own[name]
        return False


def bind(built: graph.Stage, tensors: Weights) -> Weights:
    """The stage's weights out of those of the whole model, each contiguous in memory.

    Raises:
        InvalidCheckpoint: ``tensors`` lacks a parameter of the stage, or has it in another shape or type.
    """
    arrays = {}
    for name, (dtype, shape) in built.parameters.items():
        if name not in tensors:
            raise InvalidCheckpoint(f"the weights lack {name!r}")
        tensor = tensors[name]
        wanted = "uint16" if dtype == "bfloat16" else dtype  # numpy has no bfloat16: its bits do
        if tensor.dtype.name != wanted or list(tensor.shape) != shape:
            raise InvalidCheckpoint(
                f"weight {name!r} is {tensor.dtype.name} {list(tensor.shape)} where the settings say {dtype} {shape}"
            )
        arrays[name] = np.ascontiguousarray(tensor)
    return arrays


_BFLOAT16 = 16  # in onnx.TensorProto.DataType


def _ort_value(dtype: str, array: npt.NDArray[np.generic]) -> ort.OrtValue:
    if dtype == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)

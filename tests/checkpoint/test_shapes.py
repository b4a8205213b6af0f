from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models import tiny
from unitvec.checkpoint import gguf, shapes
from unitvec.engine import graph


@pytest.mark.parametrize("make", [tiny.bert, tiny.qwen3, tiny.gemma3])
def test_parameters_are_those_of_the_modules(make: Callable[[], tiny.Tiny], tmp_path: Path) -> None:
    spec = gguf.read(make().write(tmp_path / "model.gguf")).spec
    spec = replace(spec, dense=tuple(replace(head, bias=True) for head in spec.dense))
    built = {name: tuple(shape) for stage in graph.build(spec) for name, (_, shape) in stage.parameters.items()}
    assert dict(shapes.parameters(spec)) == built

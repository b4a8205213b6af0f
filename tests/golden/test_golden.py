"""The recorded answers of the reference server. Vectors are compared by cosine, all else as it stands."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import Server

CASES = json.loads(Path(__file__).with_name("ollama.json").read_text())

# Where the model is kept differently (safetensors, not F16 GGUF) or the reference's own paths and versions show.
LOOSE = {
    "version", "modelfile", "license", "tensors", "model_info", "template", "parent_model", "size_vram", "families",
    "owned_by", "format", "quantization_level", "parameter_size",
}  # fmt: skip


def vector(value: Any) -> np.ndarray | None:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4")
    if isinstance(value, list) and value and all(isinstance(x, float | int) for x in value):
        return np.array(value)
    return None


def compare(want: Any, got: Any, at: str = "") -> None:
    wanted = vector(want) if at.endswith("embedding") or "embeddings" in at else None
    if wanted is not None:
        mine = vector(got)
        assert mine is not None and mine.shape == wanted.shape, at
        assert mine @ wanted / np.linalg.norm(mine) / np.linalg.norm(wanted) > 0.9999, at
    elif isinstance(want, dict):
        assert isinstance(got, dict), at
        for key, value in want.items():
            assert key in got or (key in LOOSE and not value), f"{at}.{key} is missing"
            if key not in LOOSE:
                compare(value, got[key], f"{at}.{key}")
    elif isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want), at
        for i, (w, g) in enumerate(zip(want, got, strict=True)):
            compare(w, g, f"{at}[{i}]")
    else:
        assert want == got, at


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_as_recorded(case: dict[str, Any], server: Server) -> None:
    check(case, server.url)


def check(case: dict[str, Any], url: str) -> None:
    """A server's answer to a case is the one that was recorded."""
    body = case.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        reply = client.request(case["method"], case["path"], content=body, headers=case.get("headers"))
    want = case["expect"]
    statuses = want["status"] if isinstance(want["status"], list) else [want["status"]]
    assert reply.status_code in statuses, reply.text
    for header, value in want.get("headers", {}).items():
        assert reply.headers[header] == value
    if "content_type" in want and reply.status_code == want.get("reference_status", statuses[0]):
        assert reply.headers["content-type"].startswith(want["content_type"])
    if want.get("reference_text"):
        assert reply.text == want["reference_text"]
    if reply.status_code >= 400 and "error" in want:
        error = reply.json()["error"]
        assert error == want["error"] if want["error"] is not None else error
    elif reply.status_code < 300 and ("json" in want or "embeddings" in want):
        expected = dict(want.get("json") or {})
        if "embeddings" in want:
            expected["embeddings"] = want["embeddings"]
        compare(expected, reply.json())

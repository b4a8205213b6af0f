from pathlib import Path

import pytest
from tiny_model import write_model_folder


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "tiny")

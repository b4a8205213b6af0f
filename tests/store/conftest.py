from collections.abc import Iterator
from pathlib import Path

import pytest
from real_registry import LAYERS, Proxy, proxy_to, publish, running_registry
from tests.conftest import need
from tiny_model import write_model_folder


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "tiny")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``HOST:PORT`` of a real registry that has library/m:latest."""
    need("docker-registry", "PULLING IS")
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        publish(host, "library/m", "latest", LAYERS)
        yield host


@pytest.fixture
def proxy(registry: str) -> Iterator[Proxy]:
    with proxy_to(registry) as made:
        yield made

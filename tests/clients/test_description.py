"""The API's description against the server, by schemathesis: no 5xx, no answer that it does not foresee."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.clients.environments import python
from tests.conftest import Server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.clients
def test_answers_are_those_of_the_description(server: Server, tmp_path: Path) -> None:
    command = python("schemathesis==4.32.5").with_name("st")
    done = subprocess.run(
        [command, "run", f"{server.url}/openapi.json", "--checks", CHECKS, "--max-examples", "100", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,  # it keeps a cache where it runs
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "15/15" in done.stdout

"""The files of deploy/: as far as they can be tried without a daemon of their own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Server

DEPLOY = Path(__file__).parents[1] / "deploy"


def test_the_dashboards_queries_ask_for_labels_that_are_there(server: Server) -> None:
    server.embed(input="a")
    text = server.client.get("/metrics").text
    labels: dict[str, set[str]] = {}
    for name, inner in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels.setdefault(name, {"instance"}).update(re.findall(r'(\w+)="', inner))
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        used = re.findall(r"((?:unitvec|process)_\w+)\{([^}]*)\}", query)
        assert used, query
        by = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
        for name, selector in used:
            wanted = by | set(re.findall(r'(\w+)=~?"', selector))
            assert wanted <= labels[name], query


def test_the_images_sources_are_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    root = DEPLOY.parent
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((root / source).exists() for source in sources.split())
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "unitvec.service"
    unit.write_text((DEPLOY / unit.name).read_text().replace("/opt/unitvec/bin/unitvec", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

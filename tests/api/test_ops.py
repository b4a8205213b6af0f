"""Health, metrics, logs, the API's description and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Server


def samples(text: str) -> dict[str, float]:
    pairs = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_metrics_count_what_was_done(start: Callable[..., Server]) -> None:
    own = start("all-minilm")
    own.embed(input=["one text", "and another one"])
    own.client.post("/api/embed", json={"model": "nope", "input": "a"})
    own.client.get("/any/path/at/all")
    reply = own.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(reply.text)
    assert found['unitvec_http_requests_total{method="POST",route="/api/embed",status="200"}'] == 1
    assert found['unitvec_http_requests_total{method="POST",route="/api/embed",status="404"}'] == 1
    assert found['unitvec_http_requests_total{method="GET",route="other",status="404"}'] == 1
    assert found['unitvec_http_request_duration_seconds_count{route="/api/embed"}'] == 2
    assert found['unitvec_http_request_duration_seconds_bucket{route="/api/embed",le="+Inf"}'] == 2
    assert found["unitvec_texts_total"] == 2
    assert found["unitvec_tokens_total"] == 9
    assert found["unitvec_batch_tokens_sum"] == 9
    assert found["unitvec_loads_total"] == found["unitvec_models_loaded"] == 1
    assert found['unitvec_step_seconds_total{step="run"}'] > 0
    assert found["process_resident_memory_bytes"] > 1e7
    helped = [line.split()[2] for line in reply.text.splitlines() if line.startswith("# HELP")]
    assert len(helped) == len(set(helped))


def test_health(server: Server) -> None:
    assert server.client.get("/health/live").json() == {"status": "live"}
    assert server.client.get("/health/ready").json() == {"status": "ready"}


def test_a_request_has_an_id_in_its_answer_and_in_the_log_which_has_no_text(start: Callable[..., Server]) -> None:
    own = start("all-minilm", "--log-format", "json", "--api-key", "open-sesame")
    headers = {"Authorization": "Bearer open-sesame", "X-Request-Id": "order-66"}
    body = {"model": "all-minilm", "input": "a very private text"}
    taken = own.client.post("/api/embed", json=body, headers=headers)
    assert taken.headers["x-request-id"] == "order-66"
    hostile = own.client.post("/api/embed", json=body, headers=headers | {"X-Request-Id": 'a" b'})
    assert hostile.headers["x-request-id"] != 'a" b'
    own.client.post("/v1/embeddings", json={"model": "all-minilm", "input": "another private text"}, headers=headers)
    own.client.post("/api/embed", content=b'{"model": "private text"', headers=headers)
    own.stop()
    output = own.output()
    assert "private" not in output
    assert "sesame" not in output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    line = next(line for line in lines if line.get("request") == "order-66")
    assert (line["path"], line["status"], line["texts"], line["tokens"]) == ("/api/embed", 200, 1, 6)


def test_the_description_names_routes_that_are_there(server: Server) -> None:
    told = server.client.get("/openapi.json").json()
    for path, methods in told["paths"].items():
        for method in methods:
            reply = server.client.request(method.upper(), path.replace("{model}", "all-minilm"), json={})
            assert reply.status_code not in (405, 501), path
            assert reply.text != "404 page not found", path
            assert str(reply.status_code) in methods[method]["responses"], (path, reply.text)
    page = server.client.get("/docs").text
    assert "/v1/embeddings" in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_root_is_a_page_for_browsers_only(server: Server) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = server.client.get("/", headers=browser)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "src=" not in page.text.replace("src='http", "")
    assert server.client.get("/", headers={"Accept": "*/*"}).text == "Ollama is running"
    assert server.client.head("/").status_code == 200


def test_the_dashboard_and_the_documentation_name_metrics_that_are_there(server: Server) -> None:
    told = set(re.findall(r"# TYPE (\S+) ", server.client.get("/metrics").text))
    root = Path(__file__).parents[2]
    for path in ("deploy/grafana.json", "docs/operations.md"):
        named = re.findall(r"\b(?:unitvec|process)_[a-z_]+[a-z]\b", (root / path).read_text())
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= told, path

"""OpenTelemetry traces, received by a small collector of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import Server

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install '.[traces]'")


def test_a_span_joins_the_callers_trace_and_has_no_text_and_no_key(start: Callable[..., Server]) -> None:
    received: list[bytes] = []
    came = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, *_: object) -> None:
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    own = start("all-minilm", "--traces", "--api-key", "open-sesame", environment=settings)
    own.client.headers["Authorization"] = "Bearer open-sesame"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"model": "all-minilm", "input": "a very private text"}
    own.client.post("/api/embed", json=body, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert came.wait(20)
    own.stop()
    collector.shutdown()
    collector.server_close()
    spans = b"".join(received)
    assert bytes.fromhex(trace) in spans
    assert b"/api/embed" in spans
    assert b"unitvec.tokens" in spans
    for step in (b"parse", b"load", b"tokenize", b"run", b"write"):
        assert b"*" + bytes([len(step)]) + step in spans, step  # a span's name in protobuf: field 5, its length
    assert b"private" not in spans
    assert b"sesame" not in spans

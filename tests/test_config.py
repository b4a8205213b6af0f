"""Addresses as OLLAMA_HOST has them."""

from __future__ import annotations

import pytest

from unitvec.config import Address, available_cores, available_memory
from unitvec.errors import UnitvecError


@pytest.mark.parametrize(
    ("text", "host", "port", "reachable"),
    [
        ("", "127.0.0.1", 11434, "http://127.0.0.1:11434"),
        ("0.0.0.0", "0.0.0.0", 11434, "http://127.0.0.1:11434"),
        (":8080", "127.0.0.1", 8080, "http://127.0.0.1:8080"),
        ("example.org", "example.org", 11434, "http://example.org:11434"),
        ("http://example.org", "example.org", 80, "http://example.org:80"),
        ("https://example.org/path", "example.org", 443, "https://example.org:443"),
        ("[::1]", "::1", 11434, "http://[::1]:11434"),
        ("[::]:1", "::", 1, "http://[::1]:1"),
        ("::1", "::1", 11434, "http://[::1]:11434"),
        ('"127.0.0.1:1"', "127.0.0.1", 1, "http://127.0.0.1:1"),
    ],
)
def test_addresses(text: str, host: str, port: int, reachable: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.reachable) == (host, port, reachable)


@pytest.mark.parametrize("text", ["127.0.0.1:x", "127.0.0.1:70000", "[::1", "foo://x", "127.0.0.1:-1"])
def test_texts_that_are_no_addresses(text: str) -> None:
    with pytest.raises(UnitvecError, match="is no address"):
        Address.parse(text)


def test_the_machine_has_something() -> None:
    assert available_cores() >= 1
    assert available_memory() > 1 << 20

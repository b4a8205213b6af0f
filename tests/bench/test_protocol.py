import numpy as np
import pytest

from unitvec.bench.client import Endpoint
from unitvec.bench.protocol import PROTOCOLS, BadAnswer, error_message
from unitvec.errors import UnitvecError


@pytest.mark.parametrize(
    ("kind", "body", "headers"),
    [
        ("ollama", b'{"model":"m","embeddings":[[1,0],[0,1]],"prompt_eval_count":9}', {}),
        (
            "openai",
            b'{"data":[{"index":1,"embedding":[0,1]},{"index":0,"embedding":[1,0]}],"usage":{"prompt_tokens":9}}',
            {},
        ),
        ("tei", b"[[1,0],[0,1]]", {b"x-compute-tokens": b"9"}),
    ],
)
def test_vectors_come_in_the_order_of_the_texts(kind: str, body: bytes, headers: dict[bytes, bytes]):
    vectors, tokens = PROTOCOLS[kind].answer(body, headers)
    np.testing.assert_array_equal(vectors, [[1, 0], [0, 1]])
    assert tokens == 9


def test_a_server_need_not_count_tokens():
    assert PROTOCOLS["tei"].answer(b"[[1,0]]", {})[1] is None
    assert PROTOCOLS["openai"].answer(b'{"data":[{"index":0,"embedding":[1]}]}', {})[1] is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b'{"embeddings":null}', b'{"embeddings":[[1,2],[3]]}', b'{"embeddings":[[1,null]]}',
     b'{"embeddings":[["a"]]}', b'{"embeddings":[1,2]}'],
)  # fmt: skip
def test_what_is_no_answer_is_said_to_be_none(body: bytes):
    with pytest.raises(BadAnswer):
        PROTOCOLS["ollama"].answer(body, {})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":"no such model"}', "no such model"),
        (b'{"error":{"message":"no such model","type":"x"}}', "no such model"),
        (b'{"detail":"no such model"}', "no such model"),
        (b"<html>\n no such model\n", "<html> no such model"),
        (b'"text"', '"text"'),
        (b"", ""),
    ],
)
def test_errors_are_told_in_one_line(body: bytes, said: str):
    assert error_message(body) == said


def test_urls():
    assert Endpoint.parse("http://host:80/prefix/", "/embed") == Endpoint("host", 80, "/prefix/embed")
    assert Endpoint.parse("host:11434", "/embed") == Endpoint("host", 11434, "/embed")
    assert Endpoint.parse("https://host", "/embed") == Endpoint("host", 443, "/embed", tls=True)
    assert Endpoint.parse("http://[::1]:1", "/").authority == "[::1]:1"
    for url in ("ftp://host", "http://", "http://host:port"):
        with pytest.raises(UnitvecError):
            Endpoint.parse(url, "/embed")

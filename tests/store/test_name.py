from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitvec.errors import InvalidRequest
from unitvec.store.name import Name

FULL = "registry.ollama.ai/library/all-minilm:latest"


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("all-minilm", FULL, "all-minilm:latest"),
        ("all-minilm:latest", FULL, "all-minilm:latest"),
        ("library/all-minilm", FULL, "all-minilm:latest"),
        ("https://registry.ollama.ai/library/all-minilm:latest", FULL, "all-minilm:latest"),
        ("bob/embed:v1.5", "registry.ollama.ai/bob/embed:v1.5", "bob/embed:v1.5"),
        ("http://localhost:5001/library/m", "localhost:5001/library/m:latest", "localhost:5001/library/m:latest"),
        ("localhost:5001/library/m:t", "localhost:5001/library/m:t", "localhost:5001/library/m:t"),
        ("hf.co/User/Repo-GGUF:Q8_0", "hf.co/User/Repo-GGUF:Q8_0", "hf.co/User/Repo-GGUF:Q8_0"),
        ("_a/_b:_c", "registry.ollama.ai/_a/_b:_c", "_a/_b:_c"),
    ],
)
def test_reads_names_as_ollama_does(text: str, full: str, short: str) -> None:
    name = Name.parse(text)
    assert (str(name), name.short) == (full, short)
    assert Name.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":a", "/a", "a/", "a//b", "a/b/c/d", "http://a", "http:///b/c", "a b", "a@b", "é", "-a", ".a",
     "a:.b", "..", "../a", "a/../b", "../../etc/passwd", "..:..", "a.b/c", "a\n", "a\0", "a\\b", "h/n/m:t:u",
     "a:b/c", "n" * 81, "a:" + "t" * 81, "h" * 351 + "/n/m"],
)  # fmt: skip
def test_refuses_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid model name$"):
        Name.parse(text)


def test_names_ignore_case() -> None:
    assert Name.parse("All-MiniLM") == Name.parse("registry.OLLAMA.ai/Library/all-minilm:LATEST")
    assert len({Name.parse("a"), Name.parse("A")}) == 1
    assert Name.parse("a") != Name.parse("a:b")
    assert Name.parse("A").short == "A:latest"


def test_a_scheme_says_how_to_ask_and_is_no_part_of_the_name() -> None:
    plain, secure = Name.parse("http://h/n/m"), Name.parse("h/n/m")
    assert (plain.scheme, secure.scheme) == ("http", "https")
    assert plain == secure


NASTY = st.text(st.sampled_from("ab._-:/\\@~ \0\n%é") | st.characters(), max_size=40)
PARTS = st.lists(
    st.sampled_from(["..", ".", "", "a", "A-b", "etc", "http:", "%2e%2e", "x:1", "C:", "\\\\"]) | NASTY, max_size=6
)


@given(NASTY | PARTS.map("/".join) | PARTS.map(":".join))
def test_no_name_leaves_the_store(text: str) -> None:
    try:
        name = Name.parse(text)
    except InvalidRequest:
        return
    root = Path("/store/manifests")
    path = (root / name.path).resolve()
    assert path.relative_to(root).parts == (name.host, name.namespace, name.model, name.tag)
    assert Name.from_path(PurePosixPath(*path.relative_to(root).parts)) == name
    assert Name.parse(str(name)) == name
    assert Name.parse(name.short) == name


@given(st.lists(st.text(max_size=8), min_size=4, max_size=4))
def test_no_parts_leave_the_store(parts: list[str]) -> None:
    try:
        name = Name(*parts)
    except InvalidRequest:
        return
    assert (Path("/store") / name.path).resolve().parts == ("/", "store", *parts)

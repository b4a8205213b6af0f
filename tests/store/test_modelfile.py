import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitvec.errors import InvalidRequest
from unitvec.store.modelfile import Modelfile


def test_all_instructions() -> None:
    made = Modelfile.parse(
        '# a comment\nfrom ./model.gguf\n  PARAMETER num_ctx 512\nPARAMETER temperature 0.5\nPARAMETER stop "a b"\n'
        'TEMPLATE """{{ .Prompt }}\n# no comment\n"""\nSYSTEM "be brief"\nLICENSE MIT\nLICENSE """two\nlines"""'
    )
    assert made == Modelfile(
        base="./model.gguf",
        parameters={"num_ctx": 512, "temperature": 0.5, "stop": ["a b"]},
        template="{{ .Prompt }}\n# no comment\n",
        system="be brief",
        licenses=["MIT", "two\nlines"],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("PARAMETER num_ctx 5", "no FROM line"),
        ("FROM x\nPARAMETER num_ctx", "line 2: PARAMETER num_ctx has no value"),
        ("FROM x\n\nADAPTER y", "line 3: ADAPTER is not supported"),
        ("FROM", "line 1: an instruction and its value are wanted"),
    ],
)
def test_mistakes_name_their_line(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Modelfile.parse(text)


@given(st.text(st.sampled_from('FROMfrom PARAMETER#"\n\t x.5') | st.characters()))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert Modelfile.parse(text).base

import pytest

from tests.conftest import Server
from unitvec.bench.texts import KINDS, Texts


def test_a_seed_gives_the_same_texts_in_the_same_order():
    first, second = Texts(7), Texts(7)
    assert first.take("short", 3) + first.take("mixed", 3) == second.take("short", 3) + second.take("mixed", 3)


def test_no_text_comes_twice_whatever_its_kind_and_seed():
    texts = [text for seed in range(20) for supply in [Texts(seed)] for kind in KINDS for text in supply.take(kind, 50)]
    assert len(set(texts)) == len(texts)


def test_texts_differ_within_their_first_four_words():
    texts = [text for seed in range(20) for text in Texts(seed).take("short", 200)]
    assert len({tuple(text.split()[:4]) for text in texts}) == len(texts)
    assert len({text.split()[0] for text in texts}) > 500


@pytest.mark.parametrize(("kind", "tokens"), [("short", 35), ("passages", 150)])
def test_texts_have_about_the_tokens_that_are_promised(server: Server, kind: str, tokens: int):
    count = server.embed(input=Texts(1).take(kind, 64))["prompt_eval_count"]
    assert isinstance(count, int)
    assert 0.9 * tokens < count / 64 < 1.1 * tokens


def test_mixed_lengths_are_mixed():
    lengths = sorted(len(text.split()) for text in Texts(1).take("mixed", 500))
    assert lengths[0] >= 5
    assert lengths[50] < 12
    assert lengths[450] > 60
    assert lengths[-1] <= 180

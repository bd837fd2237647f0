"""Tokens become words that lie where they say, and no score is lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newslora.explanation.words import LEVELS, join_words, level


def joined(text: str, pieces: list[str]) -> list[str]:
    """Words of a text whose tokens are these pieces, in order."""
    offsets = []
    end = 0
    for piece in pieces:
        start = text.index(piece, end)
        end = start + len(piece)
        offsets.append((start, end))
    return [word.text for word in join_words(text, offsets, [1.0] * len(offsets))]


def test_pieces_of_a_word_become_one_and_marks_stand_alone() -> None:
    text = "Striker's late semi-final, 3.5 Zürich!"
    pieces = ["Strik", "er", "'", "s", " late", " sem", "i", "-", "final", ",", " 3", ".", "5", " Zür", "ich", "!"]
    assert joined(text, pieces) == ["Striker's", "late", "semi", "-", "final", ",", "3", ".", "5", "Zürich", "!"]


def test_scripts_without_spaces_keep_their_tokens() -> None:
    assert joined("东京股市 rises", ["东京", "股市", " ri", "ses"]) == ["东京", "股市", "rises"]


def test_bytes_of_one_character_are_one_word() -> None:
    words = join_words("a 🙂 b", [(0, 1), (2, 3), (2, 3), (2, 3), (4, 5)], [1, 2, 3, 4, 5])
    assert [(word.text, word.score) for word in words] == [("a", 1), ("🙂", 9), ("b", 5)]


def test_a_token_without_letters_goes_to_the_next_word_and_at_the_end_to_the_last() -> None:
    words = join_words("a b ", [(0, 1), (1, 2), (2, 3), (3, 4)], [1, 2, 3, 4])
    assert [(word.text, word.score) for word in words] == [("a", 1), ("b", 9)]


@given(st.text(alphabet="ab'-, 东é\n", max_size=30), st.lists(st.integers(1, 4), min_size=30, max_size=30))
def test_words_lie_where_they_say_in_order_and_scores_add_up(text: str, sizes: list[int]) -> None:
    offsets = []
    start = 0
    for size in sizes:
        if start < len(text):
            offsets.append((start, min(start + size, len(text))))
            start += size
    scores = [float(2**place) for place in range(len(offsets))]
    words = join_words(text, offsets, scores)
    assert all(text[word.start : word.end] == word.text == word.text.strip() != "" for word in words)
    assert all(one.end <= other.start for one, other in itertools.pairwise(words))
    assert "".join(text.split()) == "".join("".join(word.text.split()) for word in words)
    if words:
        assert sum(word.score for word in words) == sum(scores)


@pytest.mark.parametrize(("score", "expected"), [(0, 0), (0.05, 0), (-0.2, 1), (0.5, 2), (-1, LEVELS)])
def test_levels_are_shares_of_the_heaviest(score: float, expected: int) -> None:
    assert level(3 * score, 3) == expected
    assert level(score, 0) == 0

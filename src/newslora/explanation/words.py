"""Tokens of a text and a score each -> words with their places in the text and the sum of their tokens' scores.

The rule is the same for every tokenizer: tokens that touch inside a run of letters and digits are one word. What a
tokenizer itself calls a word differs: a whole clause, for Chinese in a SentencePiece vocabulary.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
BOUNDS = (0.1, 0.35, 0.7)  # shares of the heaviest score from which words are marked more strongly
LEVELS = len(BOUNDS)


@dataclass(frozen=True, slots=True)
class Word:
    """A word, number or mark of a text; `text[start:end]`, counted in characters (Unicode code points)."""

    text: str
    start: int
    end: int
    score: float


def join_words(text: str, offsets: Sequence[tuple[int, int]], scores: Sequence[float]) -> tuple[Word, ...]:
    """Join scored tokens to words, in the order of the text.

    Args:
        text: what was tokenised.
        offsets: start and end of each token in `text`; special tokens left out. Spaces at a token's edge do not count.
        scores: of each token. The words' scores add up to the tokens'.
    """
    words: list[Word] = []
    held = 0.0  # of tokens without a letter of their own, such as SentencePiece's lone space: part of the next word
    for (start, end), score in zip(offsets, scores, strict=True):
        piece = text[start:end]
        start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
        if start >= end:
            held += score
        elif words and (start < words[-1].end or (start == words[-1].end and _inside_word(text, start))):
            last = words.pop()
            end = max(end, last.end)
            words.append(Word(text[last.start : end], last.start, end, last.score + held + score))
            held = 0.0
        else:
            words.append(Word(text[start:end], start, end, held + score))
            held = 0.0
    if held and words:
        last = words.pop()
        words.append(Word(last.text, last.start, last.end, last.score + held))
    return tuple(words)


def _inside_word(text: str, place: int) -> bool:
    """Whether the characters before and at `place` belong to one word; scripts without spaces are left as tokens."""
    return all(_of_word(character) for character in text[place - 1 : place + 1])


def _of_word(character: str) -> bool:
    wide = unicodedata.east_asian_width(character) == "W"
    return not wide and (
        character.isalnum() or character in APOSTROPHES or unicodedata.category(character).startswith("M")
    )


def level(score: float, heaviest: float) -> int:
    """How strongly to mark a word, 0 (not at all) to `LEVELS`, by its share of the text's heaviest word."""
    share = abs(score) / heaviest if heaviest else 0.0
    return sum(share > bound for bound in BOUNDS)

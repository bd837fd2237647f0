"""Texts unlike any news: every fp32 export must answer them as the run does, besides the held rows."""

from newslora.model.adapter import AdapterCard

_SENTENCE = "Striker scores twice as the hosts reach the final of the cup for the first time in nineteen years. "
_UNUSUAL = (
    "",
    " ",
    ".",
    "a",
    "news",
    "7",
    "-" * 80,
    "\n\n\t\n",
    "supercalifragilisticexpialidocious" * 8,  # one word of many tokens, or of one unknown
    "GOAL GOAL GOAL GOAL",
    "ein Wort, zwei Wörter; naïve façade, Ærøskøbing",
    "中国队在决赛中两次得分",
    "اللاعب يسجل هدفين في المباراة النهائية",
    "खिलाड़ी ने फाइनल में दो गोल किए",
    "Ежегодный доход вырос на 12 %",
    "\N{SOCCER BALL}\N{WHITE HEAVY CHECK MARK} 2:1 \N{FACE WITH TEARS OF JOY}",
    "e\N{COMBINING ACUTE ACCENT}" * 12,
    "zero\N{ZERO WIDTH SPACE}width\N{ZERO WIDTH JOINER}and\N{RIGHT-TO-LEFT OVERRIDE}turned",
    "nul \0 bell \a escape \x1b",
    "\N{REPLACEMENT CHARACTER}" * 5,
    "&lt;b&gt;Oil&lt;/b&gt; climbs past $55 <a href='x'>read</a>",
    "[MASK] [SEP] [CLS] <s> </s> <mask> [PAD] <pad>",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
)


def odd_texts(card: AdapterCard) -> list[str]:
    """The texts, and long ones: close to the length limit, at it, and far beyond it."""
    near = _SENTENCE * max(1, card.max_length // 30)
    return [*_UNUSUAL, near, "word " * (card.max_length - 2), _SENTENCE * (card.max_length // 6), "x" * 20_000]

"""Explanations on screen: the text in colour, its weightiest words, and the test of explanations."""

from typing import TYPE_CHECKING, Any

from newslora.cli.common import new_table
from newslora.data.lines import visible
from newslora.explanation.attributions import Explanation
from newslora.explanation.words import LEVELS, level

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# black on pale to strong, legible on light and dark terminals; strong ones differ without colour too
FOR = ("", "black on #cfeacf", "black on #8fd18f", "bold black on #4fb34f")
AGAINST = ("", "black on #f6d5cf", "black on #eda699", "bold underline black on #e06f5c")
WORDS_SHOWN = 6
assert len(FOR) == len(AGAINST) == LEVELS + 1


def marked_text(one: Explanation) -> "Text":
    """The text, its words coloured: green for the label, red against it."""
    from rich.text import Text

    text = Text(visible(one.text).replace("\t", " "))
    heaviest = max((abs(word.score) for word in one.words), default=0.0)
    for word in one.words:
        styles = FOR if word.score > 0 else AGAINST
        text.stylize(styles[level(word.score, heaviest)], word.start, word.end)
    if one.read_to is not None:
        text.stylize("dim", one.read_to)
    return text


def heading(one: Explanation) -> str:
    """The label that is explained, its probability, and the predicted one if that is another."""
    other = "" if one.label == one.predicted else f"; predicted is {one.predicted}"
    return f"{one.label}  {one.probability:.4f}{other}"


def top_words(one: Explanation) -> "Table":
    """The words that weigh most, for or against."""
    from rich.table import Table

    table = Table("word", "score", "")
    table.columns[1].justify = "right"
    for word in one.top(WORDS_SHOWN):
        table.add_row(word.text, f"{word.score:+.3f}", "for" if word.score > 0 else "against")
    return table


def footnote(one: Explanation) -> str:
    """What the scores are and add up to."""
    return (
        f"Scores are nats of log-odds: {one.log_odds:+.2f} for this text, {one.baseline:+.2f} with every word masked; they "
        f"add up to the difference within {one.error:.1g} ({one.steps} steps)."
    )


def faithfulness_table(result: dict[str, Any]) -> "Table":
    """Drops of the probability after deleting top and random words."""
    title = "fall of the predicted label's probability, in points"
    table = new_table(title, "words deleted", "highest scores", "random")
    for line in result["by_share"]:
        table.add_row(f"{line['share']:.0%}", f"{100 * line['top']:.2f}", f"{100 * line['random']:.2f}")
    table.add_row("mean", f"{100 * result['top']:.2f}", f"{100 * result['random']:.2f}", style="bold")
    return table


def faithfulness_verdict(result: dict[str, Any]) -> str:
    """The difference with its interval, and what that means."""
    value, bounds = result["difference"]["value"], result["difference"]["interval"]
    span = "" if bounds is None else f" (95 % interval {100 * bounds[0]:.2f} to {100 * bounds[1]:.2f})"
    return (
        f"{result['rows']:,} rows: deleting the words named moves the probability by {100 * value:.2f} points more than "
        f"deleting as many at random{span}. {result['verdict']}"
    )

"""How help is set: the line ends of our docstrings are the source's, a terminal breaks its lines by its own width."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions


class HelpFormatter:
    """Cyclopts' own look, each paragraph without the line ends it has in the source."""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        from cyclopts.help.formatters import DefaultFormatter

        for entry in panel.entries:
            _unfold(entry.description)
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        from cyclopts.help.formatters import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        _unfold(description)
        console.print(description)


def _unfold(description: Any) -> None:
    """Join the lines of each paragraph, in place."""
    from rich.text import Text

    words = getattr(description, "primary_renderable", None)
    if isinstance(words, Text):
        words.plain = re.sub(r"(?<!\n)\n(?!\n)", " ", words.plain)

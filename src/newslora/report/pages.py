"""What the HTML pages share: the template environment, and numbers and marked texts as a reader wants them."""

from typing import TYPE_CHECKING, Any

from newslora.explanation.words import level

if TYPE_CHECKING:
    from jinja2 import Environment

NAMED, LONGEST = 4, 40  # words that a sentence names of each side; characters of each
_SPACE, _DASH = "\N{NO-BREAK SPACE}", "\N{EN DASH}"


def environment() -> "Environment":
    """Templates of this package; what they are given is escaped, and a fact that is missing is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("newslora.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "interval": interval, "count": count, "seconds": seconds, "short": short, "python": repr,
        "spans": spans, "weightiest": weightiest,
    }  # fmt: skip
    return environment


def percent(value: float, digits: int = 2) -> str:
    """0.9453 -> '94.53 %'; all of something only where nothing is missing: 0.99996 -> '99.99 %'."""
    most = value if value >= 1 else 1 - 0.1 ** (digits + 2)
    return f"{100 * min(value, most):.{digits}f}{_SPACE}%"


def interval(bounds: list[float] | None) -> str:
    """[0.925, 0.961] -> '92.5 to 96.1 %', with a dash; the dash alone where nothing tells them."""
    if bounds is None:
        return _DASH
    return f"{100 * bounds[0]:.1f}{_DASH}{100 * bounds[1]:.1f}{_SPACE}%"


def count(value: int) -> str:
    """37300 -> '37,300'."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """1970.2 -> '32 min 50 s'."""
    whole = round(value)
    if whole < 60:
        return f"{value:.1f}{_SPACE}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours:,}{_SPACE}h " if hours else "") + f"{minutes}{_SPACE}min {rest}{_SPACE}s"


def short(digest: str | None) -> str:
    """The first 12 digits of a hash; the files of the run hold the rest."""
    return digest[:12] if digest else "unknown"


def spans(record: dict[str, Any]) -> list[dict[str, Any]]:
    """An explanation's record -> its text in pieces: plain (no class), words `for1` to `against3`, and what was `cut`."""
    text, end = record["text"], 0
    read_to = len(text) if record["read_to"] is None else record["read_to"]
    heaviest = max((abs(word["score"]) for word in record["words"]), default=0.0)
    pieces: list[dict[str, Any]] = []
    for word in record["words"]:
        strength = level(word["score"], heaviest)
        side = "for" if word["score"] > 0 else "against"
        pieces.append({"text": text[end : word["start"]], "kind": "", "score": None})
        pieces.append({"text": word["text"], "kind": f"{side}{strength}" if strength else "", "score": word["score"]})
        end = word["end"]
    pieces.append({"text": text[end:read_to], "kind": "", "score": None})
    pieces.append({"text": text[read_to:], "kind": "cut", "score": None})
    return [piece for piece in pieces if piece["text"]]


def weightiest(record: dict[str, Any]) -> str:
    """An explanation's record -> its heaviest words of each side in a sentence, for whoever sees no marks.

    The server's page says the same (serving/page/words.js).
    """
    words = sorted(record["words"], key=lambda word: -abs(word["score"]))
    heavy = [word for word in words if level(word["score"], abs(words[0]["score"]))]
    speaking = _quoted([word["text"] for word in heavy if word["score"] > 0])
    against = _quoted([word["text"] for word in heavy if word["score"] < 0])
    if not heavy:
        return "No word weighs more than the others."
    parts = [f"For {record['label']}: {speaking}"] if speaking else []
    if against:
        parts.append(f"against: {against}" if parts else f"Against {record['label']}: {against}")
    return "; ".join(parts) + "."


def _quoted(words: list[str]) -> str:
    """The first few that differ."""
    cut = [word if len(word) <= LONGEST else word[:LONGEST] + "\N{HORIZONTAL ELLIPSIS}" for word in words]
    named = [f"\N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}" for word in dict.fromkeys(cut)][
        :NAMED
    ]
    return " and ".join([", ".join(named[:-1]), *named[-1:]] if len(named) > 1 else named)

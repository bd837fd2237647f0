"""How long texts are, how labels are spread, and what a length limit cuts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from newslora.auditing.rows import AuditRows, Split
from newslora.data.tokens import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNCUT = 1_000_000_000  # tokens; no text is that long


def describe_split(rows: AuditRows, split: Split) -> dict[str, Any]:
    """Counts, labels, and lengths in characters and words of one split."""
    texts = rows.texts[split.start : split.stop]
    return {
        "name": split.name,
        **split.articles.record(),
        "quarantine_reasons": split.articles.quarantined.reasons,
        "labels": rows.counts(split),
        "characters": _summary([len(text) for text in texts]),
        "words": _summary([len(text.split()) for text in texts]),
    }


def count_tokens(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], limit: int) -> dict[str, Any]:
    """Lengths in tokens, special ones included, before cutting; and what a limit of `limit` tokens cuts."""
    lengths = tokenize(tokenizer, texts, UNCUT).lengths
    over = lengths > limit
    return _summary(lengths) | {
        "limit": limit,
        "cut_rows": int(over.sum()),
        "cut_tokens_share": float((lengths[over] - limit).sum() / lengths.sum()),
    }


def _summary(lengths: ArrayLike) -> dict[str, float]:
    values = np.asarray(lengths)
    middle, late, last = np.percentile(values, (50, 95, 99)).tolist()
    return {
        "shortest": int(values.min()),
        "mean": round(float(values.mean()), 1),
        "median": middle,
        "percentile_95": late,
        "percentile_99": last,
        "longest": int(values.max()),
    }

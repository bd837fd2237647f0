"""The encoder and the rows that benchmarks/gpu.py checks and times on: random weights, and lengths like AG News'."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from newslora.config import load_recipe
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable

# Tokens a row of AG News (85,722 train rows) under RoBERTa's tokenizer, by percentile; mean 52.5
PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
TOKENS = (9, 24, 30, 34, 42, 50, 59, 70, 81, 122, 193, 356)
MINILM = {
    "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
    "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip


def backbone_for(name: str, folder: Path) -> str:
    """The name itself, or a folder made here with MiniLM's architecture: its package weighs too much to be carried along."""
    from transformers import BertConfig

    if name != "minilm":
        return name
    BertConfig(**MINILM).save_pretrained(folder)
    return str(folder)


def tiny_backbone(folder: Path) -> str:
    from transformers import RobertaConfig

    RobertaConfig(
        vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def drawn_rows(count: int, config: Any) -> Rows:
    """Rows of random tokens whose lengths have AG News' percentiles."""
    generator = np.random.default_rng(0)
    lengths = np.interp(generator.uniform(0, 100, count), PERCENTILES, TOKENS).round().astype(np.int64)
    return _rows(lengths, config, generator)


def source_rows(source: str, tokenizer: str, count: int, config: Any) -> Rows:
    """As many rows of the lengths that a source's rows have; their tokens do not matter."""
    from transformers import AutoTokenizer

    from newslora.data.articles import read_articles
    from newslora.data.sources import parse_source, split_for
    from newslora.data.tokens import tokenize

    parsed = parse_source(source)
    articles, _ = read_articles(parsed, split_for(parsed, "train"), load_recipe("seed").data, None)
    known = AutoTokenizer.from_pretrained(Path(tokenizer), local_files_only=True, trust_remote_code=False)
    lengths = tokenize(known, articles.texts, 512).lengths
    generator = np.random.default_rng(0)
    return _rows(generator.choice(lengths, count), config, generator)


def _rows(lengths: Any, config: Any, generator: np.random.Generator) -> Rows:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = generator.integers(5, config.vocab_size, int(offsets[-1]), dtype=np.int32)  # past the special tokens
    return Rows(TokenTable(ids, offsets), generator.integers(0, 4, len(lengths)), pad_id=config.pad_token_id)


def save_rows(rows: Rows, path: Path) -> None:
    """As newslora.bench.worker reads them."""
    pad = np.array([rows.pad_id])
    save_file({"ids": rows.tokens.ids, "offsets": rows.tokens.offsets, "labels": rows.labels, "pad_id": pad}, path)

"""A tiny classifier and files of made-up rows, for measurements of everything around the encoder."""

import csv
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from newslora.runtime import cache_folder

WORDS = 20_000
LABELS = ("World", "Sports", "Business", "Sci/Tech")


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for the time being, on the cache's disk: the system's temporary one may lie in memory, which is measured."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=folder)


def write_backbone(folder: Path, words: int, **sizes: int) -> None:
    """A random BERT of one layer, and a tokenizer that knows so many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: place for place, word in enumerate([*special, *(f"w{number}" for number in range(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(vocabulary), num_hidden_layers=1, **sizes)).save_pretrained(folder)


def write_classifier(folder: Path) -> Path:
    """An adapter folder: a backbone of 32 dimensions with LoRA; answers mean nothing."""
    from newslora.config import LoraSettings
    from newslora.model.adapter import AdapterCard, save_adapter
    from newslora.model.backbones import resolve_backbone
    from newslora.model.classifier import build_classifier

    write_backbone(folder / "backbone", WORDS, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    backbone, lora = resolve_backbone(str(folder / "backbone")), LoraSettings()
    card = AdapterCard(
        backbone=str(folder / "backbone"), backbone_kind="folder", backbone_revision=None,
        backbone_sha256=backbone.weights_sha256(), labels=LABELS, max_length=128, text_columns=("title", "description"),
        lora=lora.model_dump(),
    )  # fmt: skip
    save_adapter(build_classifier(backbone, LABELS, lora, seed=0), backbone.tokenizer(), card, folder / "adapter")
    return folder / "adapter"


def made_up_rows(body: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows without end: as in AG News a title of some 7 words and a description of some 31; one in 1,000 is empty.

    A body of `body` characters lies beside them, as in a news archive; it is no text column and only passes through.
    """
    generator = np.random.default_rng(seed)
    long = " ".join(f"w{number}" for number in generator.integers(0, WORDS, 10_000 + body))
    words = np.array([f"w{number}" for number in range(WORDS)])
    for start in itertools.count(0, 1000):
        lengths = 1 + generator.poisson((6, 30), (1000, 2))
        for place, (title, description) in enumerate(lengths):
            some = words[generator.integers(0, WORDS, title + description)]
            texts = ("", "") if place == 0 else (" ".join(some[:title]), " ".join(some[title:]))
            begin = (start + place) % 10_000
            row = {"id": str(start + place), "title": texts[0], "description": texts[1]}
            yield row | {"body": long[begin : begin + body]}


def write_rows(path: Path, size: int, body: int = 0) -> int:
    """Write a CSV or JSON lines file of at least `size` bytes; returns its rows."""
    rows, count = made_up_rows(body), 0
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ["id", "title", "description", "body"])
        if path.suffix == ".csv":
            table.writeheader()
        while stream.tell() < size:
            some = list(itertools.islice(rows, 10_000))
            if path.suffix == ".csv":
                table.writerows(some)
            else:
                stream.writelines(json.dumps(row) + "\n" for row in some)
            count += len(some)
    return count


def csv_to_parquet(source: Path, output: Path) -> None:
    """The same rows as Parquet, in row groups of pyarrow's own size (a million rows)."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    strings = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
    pq.write_table(pyarrow.csv.read_csv(source, convert_options=strings), output)

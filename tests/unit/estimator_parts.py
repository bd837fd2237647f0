"""Forty texts, an encoder that learns them within a second, and estimators on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ARTICLES
from newslora import NewsClassifier

TEXTS = [f"{text} {number}" for number in range(10) for texts in ARTICLES.values() for text in texts]
LABELS = [label for _ in range(10) for label, texts in ARTICLES.items() for _ in texts]
WORDS = sorted({word for texts in ARTICLES.values() for text in texts for word in text.split()})
QUICK = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-2, "warmup_steps": 0, "precision": "fp32"}


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One layer of tiny_bert's shape that tells words apart, so that a second of training learns; and without a head."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    config = AutoConfig.from_pretrained(tiny_bert)
    config.num_hidden_layers = 1
    config.initializer_range = 0.2  # BERT's 0.02 makes all texts nearly one vector
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def module_patches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for module fixtures too; and no metrics and no report, which take longer than a fit: nobody asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("newslora.pipeline.evaluate_articles", lambda *given, **settings: None)
        patch.setattr("newslora.pipeline.write_report", lambda run, manifest, device: None)
        yield


@pytest.fixture
def news(encoder: str) -> NewsClassifier:
    return NewsClassifier(backbone=encoder, **QUICK)


@pytest.fixture(scope="module")
def fitted(encoder: str, module_patches: None) -> NewsClassifier:
    """Shared by tests that only ask it."""
    return NewsClassifier(backbone=encoder, **QUICK).fit(TEXTS, LABELS)

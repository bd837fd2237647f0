"""Fixtures shared by all tests: a private cache, a tiny BERT with its tokenizer, and forty articles."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ARTICLES = {
    "World": ["minister meets president over border treaty", "army and rebels sign peace accord in capital"],
    "Sports": ["striker scores twice as club wins cup final", "sprinter breaks record at games in stadium"],
}


# So that an assertion in one of these tells as much as one in a test. pytest wants to hear of it before anything imports them.
PARTS = ("export", "hub", "metric", "process", "service", "source")
pytest.register_assert_rewrite("standin", *(f"{one}_parts" for one in PARTS))

gc.set_threshold(20_000, 20, 20)  # the imports of all tests make many objects that stay


def pytest_collection_finish() -> None:
    """What they left is not looked through again."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files go to workers as by `--dist loadfile`; those that ask one run's exports to one worker, which makes them once."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "tests/e2e/test_export" if file.startswith("tests/e2e/test_export") else file

    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or leaves anything in the user's cache."""
    monkeypatch.setenv("NEWSLORA_CACHE", str(tmp_path / "cache"))


def without_figures(patch: pytest.MonkeyPatch) -> None:
    """Reports have their words and no figures, whose drawing takes several times as long as a small training."""
    from newslora.report.drawing import Written

    patch.setattr("newslora.report.report.write_figure", lambda folder, name, draw: Written(name, b"", b""))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_figures(monkeypatch)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone folder: an encoder (BERT, 2 layers, 32 dimensions, random weights) and a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    words = sorted({word for texts in ARTICLES.values() for text in texts for word in text.split()})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


DECISIVE = "treaty"  # rows of `planted` are World where they hold it, else Sports
NEUTRAL = ("meets", "over", "border", "signs", "twice", "final", "games", "record", "peace", "and", "in", "at", "as")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A finished run on rows of eight words in any order; one decisive word among them makes a row World."""
    import random

    import newslora

    folder = tmp_path_factory.mktemp("planted")
    draw = random.Random(1)
    rows = []
    for number in range(160):
        words = [*draw.sample(NEUTRAL, 7), DECISIVE] if number % 2 else draw.sample(NEUTRAL, 8)
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": "World" if number % 2 else "Sports"})
    for name, part in (("train", rows[:120]), ("test", rows[120:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    run = newslora.train(
        "seed", output=folder / "run", report=False, model__backbone=str(tiny_bert),
        data__source=str(folder / "train.jsonl"), data__test=str(folder / "test.jsonl"), data__validation_rows=20,
        data__workers=0, train__epochs=8, train__batch_size=8, train__learning_rate=1e-2, train__warmup_steps=5,
        train__precision="fp32",
    )  # fmt: skip
    return run.path


@pytest.fixture
def news_file(tmp_path: Path) -> Path:
    """Forty labelled articles, two labels, as JSON lines; each text differs from the others by a number."""
    rows = [
        {"title": f"{text} {number}", "label": label}
        for number in range(10)
        for label, texts in ARTICLES.items()
        for text in texts
    ]
    path = tmp_path / "news.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_adapter(tiny_bert: Path) -> Callable[..., Path]:
    """Makes an adapter folder as training would leave it: every trainable parameter moved, nothing trained."""

    def make(
        folder: Path,
        backbone: Path = tiny_bert,
        labels: tuple[str, ...] = ("World", "Sports"),
        seed: int = 0,
        moved: float = 0.2,
        lora: dict[str, Any] | None = None,
        **card: Any,
    ) -> Path:
        import torch
        from transformers import AutoTokenizer

        from newslora.config import LoraSettings
        from newslora.model.adapter import AdapterCard, save_adapter
        from newslora.model.backbones import resolve_backbone
        from newslora.model.classifier import build_classifier, trainable_parameters

        settings = LoraSettings(**(lora or {}))
        resolved = resolve_backbone(str(backbone))
        model = build_classifier(resolved, labels, settings, seed=3, multi_label=card.get("multi_label", False))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, parameter in trainable_parameters(model):
                parameter.add_(moved * torch.randn(parameter.shape, generator=generator))
        values: dict[str, Any] = {
            "backbone": str(backbone), "backbone_kind": "folder", "backbone_revision": None,
            "backbone_sha256": resolved.weights_sha256(), "labels": labels, "max_length": 64, "text_columns": ("text",),
            "lora": settings.model_dump(),
        }  # fmt: skip
        save_adapter(model, AutoTokenizer.from_pretrained(tiny_bert), AdapterCard(**values | card), folder)
        return folder

    return make


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Begin a run, and stop it after its first checkpoint."""

    def begun(begin: Callable[[], Any]) -> None:
        from newslora.errors import InterruptedRun
        from newslora.training import loop

        save = loop.save_checkpoint

        def stopped(*given: Any, **named: Any) -> None:
            save(*given, **named)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(loop, "save_checkpoint", stopped)
            with pytest.raises(InterruptedRun):
                begin()

    return begun

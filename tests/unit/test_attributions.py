"""Explanations name the word that decides, add up, and do not depend on company."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from tokenizers.normalizers import Replace
from transformers import AutoModel, MPNetConfig, RobertaConfig

import newslora
from conftest import DECISIVE
from newslora import files
from newslora.cli.explained import footnote, marked_text, top_words
from newslora.errors import MissingExtraError, RunError, SettingsError
from newslora.explanation import attributions
from newslora.model.classifier import stock_model
from newslora.predict.calibration import Calibration
from newslora.predict.classifier import Classifier
from newslora.report.explained import write_explanations

TEXTS = ["meets over treaty border twice final games", "  peace and treaty at record in", "treaty games in final"]


@pytest.fixture(scope="module")
def classifier(planted: Path) -> Classifier:
    return Classifier.load(planted)


def test_the_planted_word_weighs_most_and_lies_where_it_is(classifier: Classifier) -> None:
    for text in TEXTS:
        one = newslora.explain(classifier, text)
        assert one.label == one.predicted == "World"
        heaviest, second = one.top(2)
        assert heaviest.text == DECISIVE == text[heaviest.start : heaviest.end]
        assert heaviest.score > 5 * abs(second.score)
        assert [word.text for word in one.words] == text.split()  # special tokens left out


def test_it_weighs_against_the_other_label_as_much(classifier: Classifier) -> None:
    world = newslora.explain(classifier, TEXTS[0])
    sports = newslora.explain(classifier, TEXTS[0], label="Sports")
    assert (sports.label, sports.predicted) == ("Sports", "World")
    assert sports.top(1)[0].score == pytest.approx(-world.top(1)[0].score, abs=0.05)  # of two labels, one loses all


def test_the_heaviest_words_are_those_of_the_label_asked_for(classifier: Classifier) -> None:
    heaviest = attributions.heaviest_words(classifier)
    for label, sign in (("World", 1), ("Sports", -1)):
        ((word, score),) = heaviest(TEXTS[0], label, 1)
        assert (word, np.sign(score)) == (DECISIVE, sign)


def test_a_word_is_compared_with_the_mask_where_the_vocabulary_has_one(planted: Path) -> None:
    classifier = Classifier.load(planted, engine="padded")
    padding, mask = classifier.tokenizer.pad_token_id, 7
    embeddings, ids = stock_model(classifier.engine.model).get_input_embeddings(), classifier.tokenizer(DECISIVE)
    odds = {}
    with torch.no_grad():
        for blank in (padding, mask):
            alone = torch.tensor([[ids["input_ids"][0], blank, ids["input_ids"][2]]])
            odds[blank] = attributions._log_odds(classifier, (embeddings(alone),), (None,), 0).item()
    assert newslora.explain(classifier, DECISIVE, label="World").baseline == pytest.approx(odds[padding], abs=1e-4)
    classifier.tokenizer.mask_token = classifier.tokenizer.convert_ids_to_tokens(mask)
    assert newslora.explain(classifier, DECISIVE, label="World").baseline == pytest.approx(odds[mask], abs=1e-4)
    assert abs(odds[mask] - odds[padding]) > 0.01


def test_scores_add_up_and_the_answer_is_the_classifiers(classifier: Classifier) -> None:
    for one in newslora.explain(classifier, TEXTS):
        answer = classifier(one.text)
        assert (one.predicted, one.probability) == (answer.label, pytest.approx(answer.probability, abs=1e-5))
        assert abs(one.log_odds - one.baseline) > 1  # there is something to explain
        assert sum(word.score for word in one.words) == pytest.approx(one.log_odds - one.baseline, rel=0.01, abs=0.01)
        assert one.complete
        assert one.remarks == []


@pytest.mark.parametrize("family", [RobertaConfig, MPNetConfig])
def test_a_text_that_spells_padding_out_is_explained_as_it_was_answered(
    family: type[Any], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    config = family(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(tmp_path / "base")
    classifier = Classifier.load(make_adapter(tmp_path / "adapter", tmp_path / "base", moved=1.0), engine="padded")
    for text in ("treaty games [PAD] final in at", "treaty nowhere [PAD] final"):  # MPNet's is the unknown word
        one = newslora.explain(classifier, text)
        assert one.probability == pytest.approx(classifier(text).probability, abs=1e-6)
        assert [word.text for word in one.words] == text.split()


def test_a_temperature_is_explained_with(planted: Path) -> None:
    calibrated = Classifier.load(planted, engine="padded")
    plain = newslora.explain(calibrated, TEXTS[0])
    calibrated.calibration = Calibration(2.0, np.zeros((0, 2), np.float32), np.zeros(0, np.int64), {"reason": None})
    halved = newslora.explain(calibrated, TEXTS[0])
    assert halved.probability == pytest.approx(calibrated(TEXTS[0]).probability, abs=1e-6)
    assert halved.log_odds == pytest.approx(plain.log_odds / 2, abs=1e-4)  # of two labels
    assert halved.top(1)[0].score == pytest.approx(plain.top(1)[0].score / 2, rel=0.02)


def test_too_few_steps_are_told(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributions, "FIRST_STEPS", 1)
    monkeypatch.setattr(attributions, "MOST_STEPS", 1)
    one = newslora.explain(classifier, TEXTS[0])
    assert one.steps == 1
    assert not one.complete
    assert f"by {one.error:.2f} of" in one.remarks[0]
    monkeypatch.setattr(attributions, "MOST_STEPS", 512)
    more = newslora.explain(classifier, TEXTS[0])  # doubled until close
    assert more.complete
    assert more.steps > 1


def test_more_steps_are_tried_only_while_they_help(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    log_odds, tried = attributions._log_odds, []

    def with_a_jump(classifier: Classifier, embedded: attributions.Windows, *more: Any) -> torch.Tensor:
        """5 more at the text itself, which no gradient shows."""
        tried.append(len(embedded[0]))
        return log_odds(classifier, embedded, *more) + (5.0 if len(tried) == 1 else 0.0)

    monkeypatch.setattr(attributions, "_log_odds", with_a_jump)
    one = newslora.explain(classifier, TEXTS[0])
    assert one.error == pytest.approx(5, abs=0.2)
    assert not one.complete
    assert sum(tried) < 256  # steps in all, of the thousand that doubling to 512 takes
    assert one.steps in (32, 64)


def test_a_text_alone_and_among_others_has_the_same_scores(classifier: Classifier) -> None:
    together = newslora.explain(classifier, [*TEXTS, TEXTS[0] * 5])
    assert [newslora.explain(classifier, text) for text in TEXTS] == together[:3]


def test_a_packed_classifier_is_explained_like_its_padded_twin(classifier: Classifier, planted: Path) -> None:
    assert classifier.engine.name == "packed"  # its stock weights are given back, so it could not be explained itself
    padded = Classifier.load(planted, engine="padded")
    assert padded.padded() is padded
    assert newslora.explain(padded, TEXTS) == newslora.explain(classifier, TEXTS)


def test_what_the_model_did_not_read_is_told(classifier: Classifier) -> None:
    limit = classifier.card.max_length  # a word is a token here; two are special
    text = " ".join([DECISIVE] * (limit + 5))
    one = newslora.explain(classifier, text)
    assert len(one.words) == limit - 2
    assert one.read_to == one.words[-1].end
    assert "the rest was cut" in one.remarks[-1]
    whole = newslora.explain(classifier, " ".join([DECISIVE] * (limit - 2)) + "  ")
    assert whole.read_to is None


def test_a_text_without_words_is_no_failure(planted: Path) -> None:
    classifier = Classifier.load(planted, engine="padded")
    # as BERT's, which drops private characters
    classifier.tokenizer.backend_tokenizer.normalizer = Replace("\ue000", "")
    one = newslora.explain(classifier, "\ue000")
    assert one.words == ()
    assert one.complete


@pytest.mark.parametrize(("wrong", "kind"), [(None, "NoneType"), (3, "int")])
def test_what_is_no_text_at_all_is_named(wrong: Any, kind: str, classifier: Classifier) -> None:
    asked = (classifier, classifier.predict_proba, lambda texts: newslora.explain(classifier, texts))
    for ask in asked:
        with pytest.raises(SettingsError, match=f"The texts are {kind}, not str. Give a string or a list of strings"):
            ask(wrong)
    with pytest.raises(SettingsError, match=f"Text 1 is {kind}, not str"):
        classifier(["treaty", wrong])
    assert len(classifier(text for text in TEXTS)) == len(TEXTS)


@pytest.mark.parametrize(
    "wrong", [{"text": "one"}, {"one"}, pa.table({"text": ["one", "two"]}), b"one", np.array("one")]
)
def test_what_would_be_taken_for_texts_by_mistake_is_refused(wrong: Any, classifier: Classifier) -> None:
    """A table's column names, a mapping's keys, a set in no order, bytes as numbers."""
    for ask in (classifier, classifier.predict_proba, lambda texts: newslora.explain(classifier, texts)):
        with pytest.raises(SettingsError, match=r"The texts are .*\. Give a"):
            ask(wrong)


def test_one_text_is_no_list_of_its_letters(classifier: Classifier) -> None:
    with pytest.raises(SettingsError, match=r"The texts are one str\. Give a list of strings: \[text\]"):
        classifier.predict_proba("Striker scores")
    with pytest.raises(SettingsError, match="Text 1 holds lone surrogates"):
        classifier(["fine", "a \ud800"])
    assert classifier.predict_proba(text for text in TEXTS).shape == (3, 2)
    assert len(classifier(np.array(TEXTS))) == 3


def test_an_explanation_is_of_the_weights_that_answered(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(Classifier.load(planted).folder, tmp_path / "adapter"))
    for path in folder.glob("calibration.*"):  # of the old weights
        path.unlink()
    monkeypatch.chdir(tmp_path)
    found, late = Classifier.load("adapter"), Classifier.load("adapter")
    monkeypatch.chdir("/")
    assert newslora.explain(found, TEXTS[0]).probability == pytest.approx(found(TEXTS[0]).probability, abs=1e-6)
    card = files.read_json(folder / "newslora.json")
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    files.write_json(folder / "newslora.json", card | {"weights_sha256": files.sha256_file(weights)})
    with pytest.raises(RunError, match=r"holds other weights \(\w+\) than were loaded from it \(\w+\)\. Load it again"):
        newslora.explain(late, TEXTS[0])
    assert newslora.explain(found, TEXTS[1])  # which has its own copy by now


def test_threads_open_one_stock_classifier(planted: Path) -> None:
    one = Classifier.load(planted)
    with ThreadPoolExecutor(4) as threads:
        assert len(set(map(id, threads.map(lambda _: one.padded(), range(4))))) == 1


def test_only_a_classifier_is_explained_and_an_engine_has_a_name(planted: Path) -> None:
    with pytest.raises(SettingsError, match=r"of a Classifier, not of PosixPath\. Load one"):
        newslora.explain(planted, TEXTS[0])  # type: ignore[call-overload]
    with pytest.raises(
        SettingsError, match=r"no engine 'paked'\. Allowed: auto, packed, padded\. Did you mean 'packed'"
    ):
        Classifier.load(planted, engine="paked")
    assert re.fullmatch(
        r"<Classifier of \w+, \w+: .+, packed in fp32, version [0-9a-f]{12}>", repr(Classifier.load(planted))
    )


def test_mistakes_get_a_sentence(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = ["treaty", 3]
    with pytest.raises(SettingsError, match="Text 1 is int"):
        newslora.explain(classifier, wrong)
    with pytest.raises(SettingsError, match=r"no label 'Sport'.*Did you mean 'Sports'"):
        newslora.explain(classifier, "treaty", label="Sport")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"newslora\[explain\]"):
        newslora.explain(classifier, "treaty")


def screen(one: Any, **settings: Any) -> str:
    console = Console(width=80, force_terminal=True, **{"color_system": "truecolor"} | settings)
    with console.capture() as captured:
        for part in (marked_text(one), top_words(one), footnote(one)):
            console.print(part)
    return captured.get()


def test_the_screen_shows_colours_unless_told_not_to(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    world = newslora.explain(classifier, TEXTS[0])
    sports = newslora.explain(classifier, TEXTS[0], label="Sports")
    assert "1;30;48;2;79;179;79mtreaty" in screen(world)  # green behind it; black, bold
    assert "1;4;30;48;2;224;111;92mtreaty" in screen(sports)  # red; underlined too
    monkeypatch.setenv("NO_COLOR", "1")
    plain = screen(sports)
    assert "8;2;" not in plain
    assert "\x1b[1;4mtreaty" in plain
    assert max(len(line) for line in screen(sports, color_system=None).splitlines()) <= 80


def test_a_page_is_text_whatever_the_text_holds(classifier: Classifier, tmp_path: Path) -> None:
    found = newslora.explain(classifier, ["<script>alert(1)</script> & treaty"])
    write_explanations(found, tmp_path / "out.html")
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert f'&amp; <span class="for3" title="{found[0].top(1)[0].score:+.3f}">treaty</span></p>' in html
    write_explanations(found, tmp_path / "out.jsonl")
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert [record["text"][word["start"] : word["end"]] for word in record["words"]] == [
        word["text"] for word in record["words"]
    ]
    with pytest.raises(SettingsError, match=r"'\.txt'. Allowed: \.jsonl"):
        write_explanations(found, tmp_path / "out.txt")

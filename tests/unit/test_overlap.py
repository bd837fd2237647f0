"""Held rows that the training rows hold too are counted, whatever their number, and a training tells of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import newslora
from newslora.data import overlap
from newslora.data.overlap import copied_rows
from newslora.data.texts import Texts

WORDS = st.lists(
    st.sampled_from(["Oil climbs", "oil  CLIMBS", " oil climbs\n", "Oil falls", "", "ß", "SS", "ü"]), max_size=12
)


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


@given(train=WORDS, held=WORDS)
def test_rows_are_counted_as_a_set_of_texts_counts_them(train: list[str], held: list[str]) -> None:
    before, overlap.CHUNK = overlap.CHUNK, 3
    try:
        found = copied_rows(Texts.of(train), Texts.of(held))
    finally:
        overlap.CHUNK = before
    assert found == sum(plain(text) in set(map(plain, train)) for text in held)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("copies", [0, 5])
def test_training_tells_of_copies_and_keeps_their_number(
    copies: int, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write(name: str, numbers: list[int]) -> str:
        rows: list[dict[str, Any]] = [{"text": f"story number {n}", "label": "ab"[n % 2]} for n in numbers]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    train = write("train.jsonl", list(range(20)))
    held = write("held.jsonl", list(range(100, 110)))
    test = write("test.jsonl", [*range(copies), *range(200, 210)])
    run = newslora.train(
        "seed", output=tmp_path / "run", model__backbone=str(tiny_bert), data__source=train,
        data__validation=held, data__test=test, data__workers=0, train__epochs=1, train__warmup_steps=0,
        train__precision="fp32", train__learning_rate=1e-6,
    )  # fmt: skip
    assert run.manifest()["copies_of_training_rows"] == {"validation": 0, "test": copies}
    for told_too in (run.adapter / "README.md", run.report_file):
        assert ("of 15 test rows stand among the training rows" in told_too.read_text()) is bool(copies)
    told = [one.getMessage() for one in caplog.records if "stand among the training rows" in one.getMessage()]
    wanted = (
        "5 of 15 test rows stand among the training rows too (case and white space aside): scores on them are higher than on "
        "new texts. `newslora audit` lists them, and near copies."
    )
    assert told == [wanted][: copies // 5]

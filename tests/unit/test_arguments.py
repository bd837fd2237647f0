"""What a caller in Python gives by mistake is named in one sentence, with what is allowed, before anything is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import newslora
from newslora.arguments import as_count, as_path
from newslora.errors import BackboneError, DataError, NewsloraError, SettingsError
from newslora.evaluation.breakdown import find_column
from newslora.predict.answers import Answers, Words

RUN = Path("no/run")  # none of this gets so far as to look for it
Call = Callable[[Any], Any]
ODD = (5, 3.5, b"x", ["a", 5], {"a": 1}, object)
PATHS: dict[str, Call] = {
    "train": lambda given: newslora.train("quickstart", output=given, data__source="no.csv"),
    "compare": lambda given: newslora.compare([RUN, "no/other"], output=given),
    "audit": lambda given: newslora.audit("corpus", output=given),
    "predict_file": lambda given: newslora.predict_file(RUN, "corpus", given),
}
DEVICES: dict[str, Call] = {
    "evaluate": lambda given: newslora.evaluate(RUN, device=given),
    "audit": lambda given: newslora.audit("corpus", device=given),
    "export": lambda given: newslora.export(RUN, device=given),
}


@pytest.mark.parametrize("given", [*ODD, True, ""], ids=repr)
@pytest.mark.parametrize("call", PATHS)
def test_an_output_that_is_no_path_is_said(call: str, given: Any) -> None:
    with pytest.raises(SettingsError, match=r"The output is .*, a \w+\. Allowed: a path, as str or Path\."):
        PATHS[call](given)


@pytest.mark.parametrize("given", [3.5, ["cpu"], {"a": 1}, object, True], ids=repr)
@pytest.mark.parametrize("call", DEVICES)
def test_what_is_no_device_is_said(call: str, given: Any) -> None:
    with pytest.raises(SettingsError, match=r"There is no device '.*' for newslora\. Allowed: 'cpu'"):
        DEVICES[call](given)


@pytest.mark.parametrize("given", [*ODD[:3], object, "abc", ("x",)], ids=repr)
def test_changes_that_are_no_settings_are_said(given: Any) -> None:
    with pytest.raises(SettingsError, match=r"The changes are .*Allowed: a dict of settings"):
        newslora.audit("corpus", changes=given)


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: newslora.audit(5), DataError, "A source of rows is the name of a file.*not int"),  # type: ignore[arg-type]
        (lambda: newslora.audit(["corpus", 5]), DataError, "not int"),  # type: ignore[list-item]
        (lambda: newslora.audit(""), DataError, "A source of rows has an empty name"),
        (lambda: newslora.audit("corpus", similarity="a"), SettingsError, r"similarity is 'a'\. Allowed: 0\.1 to 1"),  # type: ignore[arg-type]
        (lambda: newslora.audit("corpus", judge=5), SettingsError, "There is no judge '5'. Allowed: words"),  # type: ignore[arg-type]
        (lambda: newslora.audit("corpus", backbone=5), BackboneError, "A backbone is 5, a int. Allowed: as str"),  # type: ignore[arg-type]
        (lambda: newslora.export(RUN, 5), SettingsError, r"The kind of export \(--to\) is '5'. Allowed: merged"),  # type: ignore[arg-type]
        (lambda: newslora.export(RUN, rows=0), SettingsError, r"rows \(--rows\) is 0. Allowed: 1 or more; leave it out"),
        (lambda: newslora.export(RUN, rows=2.5), SettingsError, r"rows \(--rows\) is 2\.5"),  # type: ignore[arg-type]
        (lambda: newslora.export(RUN, rows=True), SettingsError, r"rows \(--rows\) is True"),
        (lambda: Answers(("a", "b"), top_k="1"), SettingsError, "top-k is '1'. Allowed: 1 to 2, the labels"),  # type: ignore[arg-type]
        (lambda: Words(2.5, lambda *_: []), SettingsError, "explain is 2.5. Allowed: 1 or more"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_not_of_the_kind_asked_for_is_said(
    call: Callable[[], Any], kind: type[NewsloraError], told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_column_that_is_no_name_is_said() -> None:
    from newslora.data.sources import open_table, parse_source

    source = parse_source("corpus")
    with pytest.raises(DataError, match="There is no column '5' in 'corpus'"):
        find_column(open_table(source, "test"), source, 5, set())  # type: ignore[arg-type]


def test_a_comparison_is_written_to_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is a folder\. Name a file in it"):
        newslora.compare([RUN, "no/other"], output=tmp_path)


def test_numbers_and_paths_of_other_libraries_are_taken() -> None:
    assert as_count(np.int64(3), "it") == 3
    assert as_path("a", "it") == as_path(Path("a"), "it") == Path("a")

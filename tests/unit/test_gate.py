"""What an export's gate lets through, and what it does not."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from newslora.errors import ExportError
from newslora.exporting import card
from newslora.exporting.card import findings
from newslora.exporting.gate import compare_answers, compare_exact, compare_odd, paired_interval, refusal, require_rows
from newslora.metrics.multi_label import sigmoid

ONE = SimpleNamespace(multi_label=False)  # a classifier, as far as the gate asks
SEVERAL = SimpleNamespace(multi_label=True, label_thresholds=np.array([0.5, 0.2]), probabilities=sigmoid)


def exact(
    wanted: list[list[float]], got: list[list[float]], classifier: Any = ONE, fp64: list[list[float]] | None = None
) -> dict[str, Any]:
    """With `fp64` the run's own logits where they differ from what it said in fp32."""
    precise = np.array(fp64 or wanted)
    return compare_exact(
        classifier, np.array(wanted, np.float32), np.array(got, np.float32), lambda rows: precise[rows]
    )


def test_rounding_passes_and_more_does_not() -> None:
    assert exact([[0.5, -0.5]], [[0.5 + 8e-6, -0.5]])["passed"]
    found = exact([[0.5, -0.5], [1.0, 0.0]], [[0.5, -0.5], [1.0, 3e-5]])
    assert not found["passed"]
    assert found["other_labels"] == 0
    assert found["largest_difference"] == pytest.approx(3e-5)
    assert found["largest_in_tolerances"] == pytest.approx(3)


def test_a_row_that_is_far_from_the_run_is_measured_from_the_run_in_fp64() -> None:
    right, off = [[2.0, -0.5], [1.0, 0.0]], [[2.0, -0.5], [1.0, 3e-5]]
    found = exact(off, right, fp64=right)  # the run's rounding
    assert (found["passed"], found["rows_in_fp64"]) == (True, 1)
    assert found["largest_difference"] < 1e-7
    assert not exact(right, off, fp64=right)["passed"]  # the export's
    both = exact([[1.0, 3e-5]], [[1.0, -5e-5]], fp64=[[1.0, 0.0]])
    assert both["passed"]  # off by less than twice what the run is
    assert not exact([[1.0, 3e-5]], [[1.0, -7e-5]], fp64=[[1.0, 0.0]])["passed"]
    wrong = exact([[1.0, 3e-3]], [[1.0, 5e-3]], fp64=[[1.0, 0.0]])
    assert not wrong["passed"]  # no rounding is as large


def test_fp64_is_asked_for_the_farthest_rows_first_and_not_for_all_of_a_wrong_export() -> None:
    wanted = np.tile(np.array([1.0, 0.0], np.float32), (50, 1))
    got = wanted + np.linspace(1e-4, 2e-4, 50, dtype=np.float32)[:, None]
    asked: list[int] = []

    def precise(rows: Any, of: Any) -> Any:
        asked.extend(rows)
        return of[rows]

    refused = compare_exact(ONE, wanted, got, lambda rows: precise(rows, wanted))  # type: ignore[arg-type]
    assert (refused["passed"], asked) == (False, [49, 48, 47, 46, 45, 44, 43, 42])
    asked.clear()
    passed = compare_exact(ONE, wanted, got, lambda rows: precise(rows, got))  # type: ignore[arg-type]
    assert (passed["passed"], sorted(asked), passed["rows_in_fp64"]) == (True, list(range(50)), 50)


def test_the_tolerance_grows_with_the_row_and_not_with_other_rows() -> None:
    assert exact([[9.0, -5.0]], [[9.0, -5.00005]])["passed"]
    assert not exact([[9.0, -5.0], [0.1, 0.9]], [[9.0, -5.0], [0.1, 0.90005]])["passed"]


def test_another_label_is_refused_unless_the_run_itself_cannot_tell() -> None:
    tied = exact([[0.3, 0.3 + 4e-6]], [[0.3 + 8e-6, 0.3]])
    assert (tied["passed"], tied["ties"], tied["other_labels"]) == (True, 1, 0)
    other = exact([[0.3, 0.4]], [[0.4, 0.3]])
    assert (other["passed"], other["ties"], other["other_labels"]) == (False, 0, 1)


def test_logits_that_are_not_finite_are_refused() -> None:
    found = exact([[0.3, 0.4], [1, 2]], [[math.nan, 0.4], [1, 2]])
    assert (found["passed"], found["largest_difference"]) == (False, None)
    assert "not finite" in refusal("It", [("the test rows", found)])


def test_several_labels_are_decided_by_their_thresholds() -> None:
    edge = math.log(0.2 / 0.8)  # the logit of the second threshold
    assert exact([[1, edge + 3e-6]], [[1, edge - 3e-6]], SEVERAL)["ties"] == 1
    found = exact([[1, edge + 0.1]], [[1, edge - 0.1]], SEVERAL)
    assert found["other_labels"] == 1


def answers(rows: int, flipped_right: int, flipped_wrong: int = 0) -> dict[str, Any]:
    """All rows are World by the run; the export calls some of the right ones, and some of the wrong ones, Sports."""
    truth = np.tile([True, False], (rows, 1))
    truth[rows // 2 :] = [False, True]  # the run is right on the first half
    wanted = np.tile(np.array([2.0, 1.0], np.float32), (rows, 1))
    got = wanted.copy()
    got[:flipped_right] = [1.0, 2.0]
    got[rows // 2 : rows // 2 + flipped_wrong] = [1.0, 2.0]
    return compare_answers(ONE, wanted, got, truth)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "right", "wrong", "passes"),
    [
        (1000, 3, 0, True),
        (1000, 4, 0, False),
        (1000, 5, 5, True),
        (1000, 6, 5, False),
        (200, 0, 2, True),
        (200, 1, 0, False),
    ],
)
def test_int8_may_lose_three_tenths_of_a_point_and_change_one_label_in_a_hundred(
    rows: int, right: int, wrong: int, passes: bool
) -> None:
    found = answers(rows, right, wrong)
    assert found["passed"] == passes
    assert found["agreement"]["value"] == 1 - (right + wrong) / rows
    assert found["lost"]["value"] == (right - wrong) / rows
    low, high = found["lost"]["interval"]
    assert low < found["lost"]["value"] < high
    if not passes:
        said = refusal("The onnx-int8 export of x", [("the test rows", found)])
        assert f"{found['agreement']['value']:.2%} get the same labels" in said


def test_int8_answers_texts_unlike_any_news_with_numbers() -> None:
    wanted = np.array([[0.3, 0.4], [1, 2]], np.float32)
    assert compare_odd(ONE, wanted, wanted[:, ::-1])["passed"]  # type: ignore[arg-type]
    found = compare_odd(ONE, wanted, np.array([[0.3, 0.4], [1, math.inf]], np.float32))  # type: ignore[arg-type]
    assert (found["passed"], found["largest_difference"]) == (False, None)


def test_few_rows_are_told_for_what_they_are() -> None:
    assert "120 rows cannot tell more" in answers(120, 0)["remark"]
    assert answers(40_000, 0)["remark"] is None
    with pytest.raises(ExportError, match=r"at least 100 labelled rows.*of 'few\.csv' there are 99"):
        require_rows(99, "'few.csv'")
    require_rows(100, "'enough.csv'")


def test_a_refusal_by_few_rows_says_that_they_cannot_tell() -> None:
    def said(*counts: int) -> str:
        return refusal("The export", [("the validation rows", answers(*counts))])

    few = said(160, 1, 0)  # 0.62 points lost, of at most 0.3
    low, high = paired_interval(1, 0, 160)
    assert "0.62 points lost (at most 0.3 may). But 160 rows cannot tell" in few
    assert f"between {100 * low:.2f} and {100 * high:.2f} points are lost" in few
    assert few.endswith("More rows (--data FILE) tell.")
    assert "cannot tell" in said(160, 1, 1)  # too few agree, by chance perhaps
    assert "cannot tell" not in said(40_000, 400, 0)  # a point is lost, surely
    assert "cannot tell" not in said(40_000, 300, 300)  # 1.5 % differ, surely


def test_a_refusal_names_its_rows_in_a_sentence() -> None:
    found = answers(1_000, 30)
    assert not found["passed"]
    said = refusal("The int8 export of runs/a", [("the test rows", found), ("odd texts", found | {"passed": True})])
    assert "the run's answers. Of the test rows, 1,000 were compared: 97.00% get the same labels" in said


def test_the_card_asks_what_the_gate_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answers(1_000, 1)
    assert [asked for asked, _ in findings(found)][:2] == ["same labels: 99 %", "lost: 0.3 points"]
    monkeypatch.setattr(card, "AGREEMENT", 0.985)
    monkeypatch.setattr(card, "LOST", 0.01)
    assert [asked for asked, _ in findings(found)][:2] == ["same labels: 98.5 %", "lost: 1 points"]


def test_the_paired_interval_is_agresti_and_mins() -> None:
    # their formula by hand: b = 16, c = 4, n = 100: (16.5 - 4.5) / 102 +- 1.96 sqrt(21 - 144 / 102) / 102
    middle, half = 12 / 102, 1.959964 * math.sqrt(21 - 144 / 102) / 102
    assert paired_interval(16, 4, 100) == pytest.approx([middle - half, middle + half])
    low, high = paired_interval(0, 0, 100)
    assert low < 0 < high  # rows that all agree do not say that nothing can differ

"""What audit.json and the JSON files of evaluation/ hold: all that is read of them. Older ones lack newer fields."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from newslora.records.reading import Part
from newslora.records.run import Count

ABSENT: Any = None  # the default of a field that may be missing, but not null
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


class Rate(Part):
    """A number, or why there is none, and its interval, or why there is none."""

    value: float | None
    interval: Interval | None
    reason: str | None = None


class Explained(Rate):
    """One that a table tells with its reason."""

    @model_validator(mode="after")
    def _reasoned(self) -> "Explained":
        if (self.value is None or self.interval is None) and self.reason is None:
            raise ValueError("it has neither value and interval nor a reason")
        return self


class Known(Part):
    """One that rows always define."""

    value: float
    interval: Interval


class Counts(Part):
    """A label by itself: right and wrong."""

    true_positives: Count
    false_positives: Count
    false_negatives: Count


class ClassNumbers(Part):
    """The numbers of one label."""

    precision: Rate
    recall: Rate
    f1: Rate
    rows: Count

    @model_validator(mode="after")
    def _found(self) -> "ClassNumbers":
        if self.rows and (self.recall.value is None or self.recall.interval is None):
            raise ValueError("recall has no value or no interval")
        return self


class SeveralNumbers(ClassNumbers):
    """The same where rows carry several labels."""

    threshold: float
    average_precision: Rate
    counts: Counts


class Bin(Part):
    """Rows of about the same confidence."""

    low: float
    high: float
    rows: Count
    confidence: float
    accuracy: Known


class Reliability(Part):
    bins: Annotated[list[Bin], Field(min_length=1)]


class Calibrated(Part):
    log_loss: float
    brier: float
    ece: float
    confidence: float


class Before(Calibrated):
    reliability: Reliability = ABSENT


class Calibration(Part):
    temperature: Annotated[float, Field(gt=0)]
    reason: str | None
    validation_rows: Count | None
    before: Before
    after: Calibrated

    @model_validator(mode="after")
    def _fitted_on_rows(self) -> "Calibration":
        if self.reason is None and self.validation_rows is None:
            raise ValueError("validation_rows is missing")
        return self


class Level(Part):
    level: float
    coverage: Known
    mean_set_size: float
    answered: Known
    accuracy_of_answered: Rate


class LevelRefused(Part):
    level: float
    reason: str


class Abstention(Part):
    levels: list[Level | LevelRefused]


class ByNumber(Part):
    low: float
    high: float
    rows: Count
    accuracy: Known


class ByName(Part):
    name: str
    rows: Count
    accuracy: Known


class NumberBreakdown(Part):
    by: str
    kind: Literal["number"]
    groups: Annotated[list[ByNumber], Field(min_length=1)]


class NameBreakdown(Part):
    by: str
    kind: Literal["name"]
    groups: Annotated[list[ByName], Field(min_length=1)]


class WrongRow(Part):
    row: Count
    text: str
    label: str
    predicted: str
    confidence: float


class MacroF1(Part):
    macro_f1: float


class Thresholds(Part):
    rows: Count
    before: MacroF1
    after: MacroF1


class ExportFacts(Part):
    name: str
    kind: str


class Evaluation(Part):
    """evaluation/NAME.json."""

    name: str
    source: str
    sha256: str
    adapter_sha256: str
    rows: Annotated[int, Field(ge=1)]
    labels: Annotated[list[str], Field(min_length=1)]
    accuracy: Known
    macro_f1: Explained
    micro_f1: Explained = ABSENT
    samples_f1: Explained = ABSENT
    hamming_loss: Explained = ABSENT
    macro_precision: Explained = ABSENT
    macro_recall: Explained = ABSENT
    mcc: Explained = ABSENT
    auroc: Explained = ABSENT
    log_loss: Explained = ABSENT
    brier: Explained = ABSENT
    ece: Explained = ABSENT
    confidence: Explained = ABSENT
    loss: float
    per_class: dict[str, SeveralNumbers | ClassNumbers]
    confusion: list[list[Count]] = ABSENT
    reliability: Reliability = ABSENT
    calibration: Calibration = ABSENT
    abstention: Abstention = ABSENT
    accuracy_by: list[Annotated[NumberBreakdown | NameBreakdown, Field(discriminator="kind")]] = ABSENT
    errors: list[WrongRow] = ABSENT
    note: str | None
    precision: str
    seconds: float
    multi_label: bool = False
    thresholds: Thresholds | None = None
    at_half: MacroF1 = ABSENT
    export: ExportFacts = ABSENT
    reading: str | None = None
    settings: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_its_labels(self) -> "Evaluation":
        labels = len(self.labels)
        if list(self.per_class) != self.labels:
            raise ValueError("per_class has other labels than labels")
        if self.confusion is not ABSENT and [len(row) for row in self.confusion] != [labels] * labels:
            raise ValueError(f"confusion is not of {labels} rows of {labels}")
        return self

    @model_validator(mode="after")
    def _whole(self) -> "Evaluation":
        needed = {"confusion": not self.multi_label, "at_half": self.thresholds is not None}
        needed |= {"confidence": self.ece is not ABSENT}
        needed |= dict.fromkeys(("reliability", "abstention"), self.calibration is not ABSENT)
        if missing := [name for name, is_needed in needed.items() if is_needed and getattr(self, name) is ABSENT]:
            raise ValueError(f"{missing[0]} is missing")
        if not self.multi_label and (self.macro_f1.value is None or self.macro_f1.interval is None):
            raise ValueError("macro_f1 has no value or no interval")
        if self.multi_label and not all(isinstance(one, SeveralNumbers) for one in self.per_class.values()):
            raise ValueError("per_class lacks the threshold, average_precision or counts of a label")
        return self


def counts_absent(one: Mapping[str, Any]) -> bool:
    """Whether its macro averages take a class that is neither among the rows nor predicted for 0, as older newsloras did."""
    classes = list(one["per_class"].values())
    if one.get("multi_label"):
        given = [own["counts"]["false_positives"] for own in classes]
    else:
        given = [sum(column) for column in zip(*one["confusion"], strict=True)]
    return any(
        not own["rows"] and not answers and own["f1"]["value"] is not None
        for own, answers in zip(classes, given, strict=True)
    )


class Word(Part):
    text: str
    start: Count
    end: Count
    score: float


class Example(Part):
    row: Count
    true: str
    text: str
    label: str
    predicted: str
    probability: float
    words: list[Word]
    read_to: int | None
    remarks: list[str]


class Explanations(Part):
    """evaluation/explanations.json."""

    adapter_sha256: str
    examples: list[Example]


class Faithfulness(Part):
    """evaluation/faithfulness.json."""

    adapter_sha256: str
    rows: Count
    difference: Rate
    verdict: str

    @model_validator(mode="after")
    def _with_difference(self) -> "Faithfulness":
        if self.difference.value is None:
            raise ValueError("difference.value is missing")
        return self


class AuditedSplit(Part):
    sha256: str
    label_column: str
    text_columns: Annotated[list[str], Field(min_length=1)]


class AuditedLabels(Part):
    split: str
    judged_by: str | None
    its_accuracy: float | None
    likely_wrong: Count
    rows: Count

    @model_validator(mode="after")
    def _judged_well(self) -> "AuditedLabels":
        if self.judged_by is not None and self.its_accuracy is None:
            raise ValueError("its_accuracy is missing")
        return self


class Leaked(Part):
    split: str
    repeats: str
    equal_rows: Count
    near_rows: Count
    with_another_label: Count
    rows: Count


class Audit(Part):
    """audit.json."""

    splits: list[AuditedSplit]
    labels: list[AuditedLabels]
    leakage: list[Leaked]
    label_names: list[str] = Field(default_factory=list)
    label_base: int | None = None

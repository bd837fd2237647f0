"""Requests and answers of the API, as pydantic models; /openapi.json and /docs are made of them.

Limits that are settings (how many texts, how long) are checked in answering.py, managing.py and streaming.py, for they differ
from server to server.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from newslora.serving import keys
from newslora.serving.strict import check_text

NAME = f"^{keys.NAME.pattern}$"
ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"

NO_NUL = {"pattern": r"^[^\u0000]*$"}  # for the description; check_text says it in words
Text = Annotated[str, AfterValidator(check_text), Field(json_schema_extra=NO_NUL)]
Label = Annotated[str, Field(min_length=1, max_length=1000, json_schema_extra=NO_NUL), AfterValidator(check_text)]
Labels = Annotated[list[Label], Field(max_length=1000)]
AdapterName = Annotated[str, Field(pattern=NAME, description="An adapter's name; left out: the default one.")]
Share = Annotated[float, Field(ge=0, le=1)]


def one_given(name: str, kind: str) -> dict[str, Any]:
    """A JSON schema: this field is there, and is not null."""
    return {"required": [name], "properties": {name: {"type": kind}}}


class Asked(BaseModel):
    """Closed to names it does not know, so that a misspelt option is never ignored; numbers are not made out of texts."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ClassifyRequest(Asked):
    """One text or several, and what is to be told of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "Striker scores twice as hosts reach final", "top_k": 2}],
            "oneOf": [one_given("text", "string"), one_given("texts", "array")],
        }
    )
    text: Text | None = Field(None, description="The text, or else `texts`.")
    # a fault for each of a million elements would hold up all other requests
    texts: list[Text] | None = Field(
        None, min_length=1, fail_fast=True, description="Several texts, answered in order by one version."
    )
    adapter: AdapterName | None = None
    top_k: int | None = Field(None, ge=1, le=1000, description="Also return this many labels, most probable first.")
    probabilities: bool = Field(False, description="Also return the probability of every label.")
    abstain: float | None = Field(
        None, ge=0.5, lt=1, description="Leave a text undecided unless its answer set at this level is a single label."
    )
    explain: bool = Field(
        False, description="Also return the words that speak for or against the label; for few texts only."
    )
    timeout: float | None = Field(
        None, gt=0, description="Seconds within which the answer is needed; by default the server's `deadline_seconds`."
    )

    @model_validator(mode="after")
    def _text_or_texts(self) -> "ClassifyRequest":
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text or texts")
        return self

    @property
    def many(self) -> list[str]:
        return [self.text] if self.text is not None else list(self.texts or ())


class StreamLine(Asked):
    """One line of a stream."""

    text: Text
    id: str | int | float | bool | None = Field(None, description="Comes back with the answer.")


class ErrorRecord(BaseModel):
    """What went wrong: one word for programs, one sentence for people."""

    code: str = Field(examples=["too_many_texts"])
    message: str = Field(
        examples=["The request holds 300 texts, and 256 are allowed. Send several requests, or stream."]
    )


class ErrorAnswer(BaseModel):
    error: ErrorRecord


class LabelProbability(BaseModel):
    label: str
    probability: Share


class ScoredWord(BaseModel):
    """A word and what it does for the label, in nats of log-odds; `text[start:end]` in characters."""

    text: str
    start: int
    end: int
    score: float


class Result(BaseModel):
    """The answer for one text; what was not asked for is left out."""

    label: str | None = Field(description="The likeliest label that is given; null where none is.")
    labels: list[str] = Field(description="All labels given, likeliest first.")
    probability: Share | None = Field(description="Probability of the most probable label, given or not.")
    probabilities: dict[str, Share] | None = None
    top: list[LabelProbability] | None = None
    abstained: bool | None = None
    answer_set: list[str] | None = None
    words: list[ScoredWord] | None = None
    error: ErrorRecord | None = Field(description="Why this text has no answer; null where it has one.")


class ClassifyAnswer(BaseModel):
    adapter: str = Field(examples=["news"])
    version: str = Field(
        description="Version of the weights that answered, the same for all results.", examples=["abc123def456"]
    )
    results: list[Result]


class StreamAnswer(BaseModel):
    """One line of the answer to a stream: a result, or an error in its place."""

    id: Any = None
    adapter: str | None = None
    version: str | None = None
    label: str | None = None
    labels: list[str] | None = None
    probability: Share | None = None
    error: ErrorRecord | None = None


class Adapter(BaseModel):
    name: str
    version: str = Field(description="First 12 hex digits of the SHA-256 of its weights.")
    labels: list[str]
    multi_label: bool = Field(description="Whether a text may carry any number of labels.")
    backbone: str
    calibrated: bool
    loaded: float = Field(description="Unix time in seconds.")
    warning: str | None = Field(
        description="Why its answers could not be checked against stored ones, if they could not."
    )
    default: bool = Field(description="Whether it answers requests that name none.")


class Adapters(BaseModel):
    adapters: list[Adapter]


class AdapterFolder(Asked):
    """Where on the server an adapter lies."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"folder": "news-2"}]})
    folder: Text = Field(
        min_length=1, max_length=4096, description="A run or adapter folder under --adapters-root.", examples=["news-2"]
    )


class Removed(BaseModel):
    removed: str


class FeedbackRequest(Asked):
    """A text and the label it should have had."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"text": "Probe lands on a comet", "label": "Sci/Tech", "predicted": "World"}],
            "oneOf": [one_given("label", "string"), one_given("labels", "array")],
        }
    )
    text: Annotated[Text, Field(min_length=1)]
    label: Label | None = Field(None, description="The right label, or else `labels`.")
    labels: Labels | None = Field(None, description="All right labels, where a text may carry several.")
    adapter: AdapterName | None = None
    predicted: Label | Labels | None = Field(None, description="What the server had answered.")
    probability: Share | None = Field(None, description="How sure it had been.")
    id: str | None = Field(None, pattern=ID, description="Your own id: sent twice, it is kept once.")

    @model_validator(mode="after")
    def _label_or_labels(self) -> "FeedbackRequest":
        if (self.label is None) == (self.labels is None):
            raise ValueError("give either label or labels")
        return self

    @property
    def right(self) -> list[str]:
        return [self.label] if self.label is not None else list(dict.fromkeys(self.labels or ()))


class FeedbackKept(BaseModel):
    id: str


class Correction(BaseModel):
    id: str
    created: float
    text: str
    labels: list[str]
    adapter: str
    version: str
    predicted: list[str] | None
    probability: float | None
    key: str | None


class Corrections(BaseModel):
    corrections: list[Correction] = Field(description="Newest first.")


class Uncertain(BaseModel):
    id: str
    time: float
    adapter: str
    version: str
    text: str
    label: str | None
    labels: list[str] = Field(description="All labels given, likeliest first.")
    probability: float
    probabilities: dict[str, float]


class UncertainItems(BaseModel):
    items: list[Uncertain] = Field(description="Least sure first.")


class Health(BaseModel):
    status: str

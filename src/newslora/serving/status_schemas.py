"""What /v1/status tells, as pydantic models."""

from pydantic import BaseModel, Field


class Answers(BaseModel):
    """Answers of one adapter in a stretch of time."""

    texts: int
    labels: dict[str, int]
    mean_confidence: float | None
    share_abstained: float | None


class ShiftNumbers(BaseModel):
    """How far the newest answers are from the baseline."""

    psi: float = Field(description="Population stability index.")
    js: float = Field(description="Jensen-Shannon distance, 0 to 1.")
    limit: float = Field(description="Of psi; beyond it the answers have shifted.")
    shifted: bool


class DriftState(BaseModel):
    baseline: str | None = Field(description="What is compared with: 'validation rows' or 'first answers'.")
    baseline_labels: dict[str, int] | None
    baseline_answers: int
    window_answers: int
    labels: ShiftNumbers | None = Field(description="Of the label mix; null until there are answers enough.")
    confidence: ShiftNumbers | None


class AdapterStatus(BaseModel):
    version: str
    corrections: int
    last_hour: Answers | None = None
    since_start: Answers | None = None
    drift: DriftState | None = None


class Load(BaseModel):
    """Over the last minute."""

    requests_per_second: float
    texts_per_second: float
    p50_ms: float | None = Field(description="Of requests other than streams, whose clients set the pace.")
    p99_ms: float | None
    requests_active: int


class ServerFacts(BaseModel):
    newslora: str
    started: float
    uptime_seconds: float
    ready: bool
    keys: bool = Field(description="Whether requests need a key.")
    feedback: bool = Field(description="Whether corrections are taken.")
    keep_uncertain: int
    explain_texts: int
    longest_timeout: float = Field(description="The longest `timeout` a request may ask for (seconds).")
    max_texts: int


class Status(BaseModel):
    server: ServerFacts
    load: Load
    queue: dict[str, float] = Field(
        description="Texts and tokens that wait before the fullest encoder, how many may, and the larger share of the two."
    )
    adapters: dict[str, AdapterStatus]

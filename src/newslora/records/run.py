"""What data.json, manifest.json and the lines of metrics.jsonl hold: all that is read of them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from newslora.records.reading import Part, Record

Count = Annotated[int, Field(ge=0)]
Shape = list[Annotated[int, Field(ge=1)]]


class Split(Part):
    """The rows of one part."""

    source: str
    sha256: str
    text_columns: Annotated[list[str], Field(min_length=1)]
    label_column: str
    rows: Count
    quarantined: Count


def _with_train(splits: dict[str, Split]) -> dict[str, Split]:
    if "train" not in splits:
        raise ValueError("train is missing")
    return splits


class Origin(Part):
    """The adapter whose weights training began with."""

    adapter: str  # as the recipe names it
    sha256: str  # of its weights


class StartedFrom(Origin):
    """The same with the rows that had trained it by then."""

    trained_on: list[str]  # hashes of their files, those of adapters before it too
    copies: dict[str, Count]  # of held rows among them, by split
    unread: list[str]  # adapters whose rows could not be read again


class Data(Part):
    """data.json."""

    labels: Annotated[list[str], Field(min_length=1)]
    label_base: int | None
    validation_is_cut_from_train: bool
    splits: Annotated[dict[str, Split], AfterValidator(_with_train)]
    max_length: Annotated[int, Field(ge=1)]
    tokenizer_sha256: str
    tokens: dict[str, Count]
    multi_label: bool = False
    trained_in: str | None = None
    backbone_sha256: str | None = None
    started_from: StartedFrom | None = None


class BackboneFacts(Part):
    """Where the pretrained weights came from."""

    name: str
    location: str
    kind: str
    revision: str | None
    sha256: str | None


class Adapted(Part):
    """One kind of matrix with LoRA."""

    name: str
    shape: Shape


class HeadPart(Part):
    """One trained tensor above the encoder."""

    name: str
    shape: Shape
    parameters: Count


class Parameters(Part):
    """How many there are."""

    trainable: Count
    lora: Count
    head: Count
    embeddings: Count
    encoder: Count
    total: Annotated[int, Field(ge=1)]


class ModelFacts(Part):
    """A classifier as built."""

    class_: Annotated[str, Field(alias="class")]
    model_type: str
    layers: Annotated[int, Field(ge=1)]
    hidden_size: Annotated[int, Field(ge=1)]
    attention_heads: Annotated[int, Field(ge=1)]
    intermediate_size: Annotated[int, Field(ge=1)]
    vocabulary: Annotated[int, Field(ge=1)]
    labels: Annotated[list[str], Field(min_length=1)]
    rank: Annotated[int, Field(ge=1)]
    alpha: float
    dropout: float
    adapted: Annotated[list[Adapted], Field(min_length=1)]
    adapted_modules: Count
    head: Annotated[list[HeadPart], Field(min_length=1)]
    parameters: Parameters


class Training(Part):
    """What training came to."""

    steps: Count
    seconds: float
    best_epoch: Count


class Machine(Part):
    """Hardware and versions."""

    device: str
    accelerator: str | None
    cpu: str
    threads: Count
    precision: str
    precision_reason: str
    python: str
    system: str
    packages: dict[str, str | None]
    commit: str | None


class Manifest(Record):
    """manifest.json."""

    recipe: str
    adapter_sha256: str
    backbone: BackboneFacts
    model: ModelFacts
    training: Training
    seed: int
    environment: Machine
    finished: str
    copies_of_training_rows: dict[str, Count] = Field(default_factory=dict)
    started_from: Origin | None = None


class TrainLine(Part):
    """A line of metrics.jsonl after some steps."""

    kind: Literal["train"]
    step: Count
    epoch: float
    loss: float
    learning_rate: float


class EpochLine(Part):
    """A line of metrics.jsonl after an epoch."""

    kind: Literal["epoch"]
    step: Count
    epoch: Count
    train_loss: float
    validation_loss: float
    validation_accuracy: Annotated[float, Field(ge=0, le=1)]
    validation_macro_f1: Annotated[float, Field(allow_inf_nan=True)]  # NaN where no row carries or is given a label


Line: Any = Annotated[TrainLine | EpochLine, Field(discriminator="kind")]

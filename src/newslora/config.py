"""All settings: the one owner of every default.

The defaults *are* the reference recipe (RoBERTa-base on AG News); a recipe file states only what it changes. The
command line, `newslora settings` and docs/settings.md derive from the descriptions below.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from newslora.errors import SettingsError, near, shortened
from newslora.stock_names import said_here

Words = tuple[Annotated[str, Field(min_length=1)], ...]
_TEXT = (str, str | None, Path | None)  # kinds of settings that are text, and lists of it
_NAMES = (Words, Words | None)
VALUE_SHOWN = 200  # characters of a refused value


class Section(BaseModel):
    """Frozen, typed, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


NO_PASSWORD = (
    "A database address with a password in it would be kept in recipe.toml, data.json and logs. Leave the password out: "
    "PostgreSQL's own library reads it from PGPASSWORD or from ~/.pgpass."
)


def is_database(source: str) -> bool:
    """Whether a source is a database's address: `sqlite:///corrections.db`, `postgresql://host/name`."""
    return bool(re.match(r"(sqlite|postgresql)(\+\w+)?://", source))


def holds_password(address: str) -> bool:
    """Whether a database's address, be it of a kind we take or not, carries a password before the host or as a parameter."""
    if not re.match(r"(sqlite|postgres\w*|mysql|mariadb|mssql|oracle)(\+\w+)?://", address, re.IGNORECASE):
        return False
    try:
        parts = urlsplit(address)
        return parts.password is not None or bool({"password", "sslpassword"} & set(parse_qs(parts.query)))
    except ValueError:
        return "@" in address


def without_password(value: str | None) -> str | None:
    """For settings that may be a database's address."""
    if value is not None and holds_password(value):
        raise PydanticCustomError("password", NO_PASSWORD)
    return value


class DataSettings(Section):
    """Where rows come from and how they become tokens."""

    source: str = Field(
        "fancyzhx/ag_news",
        min_length=1,  # an empty path would be the current folder
        description="Training rows: a file (CSV, JSON lines, Parquet; .gz and .zst too), a folder, a hub name, 'corpus' (the "
        "bundled rows), or the database address of a server's corrections. A colon selects a split, as in "
        "'fancyzhx/ag_news:train', and for hub and save_to_disk data sets also a slice, as in 'fancyzhx/ag_news:train[:10%]'; "
        "# selects one adapter's corrections, as in 'sqlite:///corrections.db#news'.",
    )
    validation: str | None = Field(
        None,
        min_length=1,
        description="Validation rows, which choose the epoch to keep; unset: the source's own validation split, or else rows "
        "cut from train.",
    )
    test: str | None = Field(
        None,
        min_length=1,
        description="Test rows, used once, after training; unset: the source's own test split, if it has one.",
    )
    train_rows: int | None = Field(
        None,
        ge=2,
        description="Number of training rows to use, a stratified sample drawn after validation rows are cut; unset: all "
        "(rows).",
    )
    validation_rows: int = Field(
        640, ge=1, description="Validation rows to cut from train, stratified by label, if none are given (rows)."
    )
    text_columns: Words | None = Field(
        None,
        description="Columns joined with a space into the text, one name or a list; unset: found by name (title, description, "
        "...).",
    )
    label_column: str | None = Field(None, description="Column of the label; unset: found by name (label, class, ...).")
    label_names: Words | None = Field(
        None,
        description="Names for numbered labels, in order of number; labels that are words keep their own names.",
    )
    require_all_names: bool = Field(
        False,
        description="Stop the run if numbered labels do not cover all of label_names. Bundled recipes set this: their names "
        "are AG News' own, and 0 and 1 in other data do not mean World and Sports. Setting other label_names turns it off.",
    )
    multi_label: bool = Field(
        False,
        description="Whether a row may have several labels, or none: a list (JSON lines, Parquet) or a text with a separator.",
    )
    label_separator: str = Field(
        ";", min_length=1, description="Separator between the labels of a row in a CSV file, if multi_label is true."
    )
    header: bool | None = Field(
        None,
        description="Whether a CSV file has a header row; unset: yes, unless the file has AG News' own form (three columns, "
        "the first a whole number).",
    )
    max_quarantine_share: float = Field(
        0.01, ge=0, le=1, description="Share of unusable rows above which the run stops (0 to 1)."
    )
    max_length: int = Field(512, ge=8, description="Maximum tokens the encoder reads at once (tokens).")
    long_texts: Literal["cut", "windows"] = Field(
        "cut",
        description="How a text longer than max_length is read: 'cut' there, or whole, in overlapping 'windows' of that length "
        "whose logits are averaged.",
    )
    window_overlap: int = Field(
        64, ge=0, description="Tokens a window shares with the previous one; only with long_texts 'windows' (tokens)."
    )
    workers: int = Field(
        4,
        ge=0,
        le=64,
        description="Data loader processes for training on a CPU, at most one per core (0: none). On a GPU none are used: "
        "handing a batch over takes longer than making it.",
    )

    @field_validator("text_columns", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    _no_password = field_validator("source", "validation", "test")(without_password)

    @property
    def overlap(self) -> int | None:
        """Tokens that windows share; None where long texts are cut."""
        return self.window_overlap if self.long_texts == "windows" else None


class ModelSettings(Section):
    """Which pretrained encoder is adapted."""

    backbone: str = Field(
        "roberta-base", description="Bundled name ('minilm'), local folder, or hub name of the pretrained encoder."
    )
    revision: str | None = Field(None, description="Commit, tag or branch of a hub backbone; unset: its default.")
    adapter: str | None = Field(
        None,
        min_length=1,
        description="Trained adapter whose LoRA and head training starts from: a run folder or its adapter/. Backbone, rank, "
        "alpha and targets must match it, and the run takes its labels; unset: new weights.",
    )
    hidden_dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout of the encoder's hidden states; unset: the backbone's own (probability)."
    )
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout of the attention probabilities; unset: the backbone's own (probability)."
    )


class LoraSettings(Section):
    """The low-rank adapter (Hu et al. 2021, arXiv:2106.09685), as PEFT implements it."""

    rank: int = Field(4, ge=1, le=1024, description="Rank r of the update BA.")
    # far beyond any use, and far below what overflows in fp32
    alpha: float = Field(16, gt=0, le=1e6, description="Scale numerator: the update is multiplied by alpha / rank.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on the input of the low-rank path (probability).")
    targets: Literal["query-value", "all-linear"] = Field(
        "query-value", description="Which projections of the encoder are adapted."
    )


class TrainSettings(Section):
    """Optimisation, evaluation rhythm and numerics."""

    epochs: int = Field(5, ge=1, description="Passes over the training rows (epochs).")
    batch_size: int = Field(16, ge=1, description="Rows per forward pass (rows).")
    accumulation_steps: int = Field(1, ge=1, description="Forward passes per optimiser step (passes).")
    group_by_length: bool | None = Field(
        None,
        description="Form batches of rows of similar length: the same rows in another order, with less padding; unset: only "
        "for encoders without a packed form, whatever the engine and device.",
    )
    evaluation_batch_size: int = Field(16, ge=1, description="Rows per forward pass in evaluation (rows).")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="Learning-rate schedule after warm-up (transformers' names)."
    )
    warmup_steps: int = Field(500, ge=0, description="Optimiser steps of linear warm-up (steps).")
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW weight decay; biases and norms are left out, as in the stock Trainer."
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW decay of the gradient's running mean.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW decay of the squared gradient's running mean.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW term added to the denominator.")
    max_gradient_norm: float = Field(1.0, ge=0, description="Gradient clipping by global norm (0: none).")
    class_balance: Literal["none", "weights", "focal"] = Field(
        "none",
        description="How rare labels are weighted; none: like all others; weights: by scikit-learn's 'balanced' class weights, "
        "with mean 1 over the training rows; focal: by the focal loss (arXiv:1708.02002), where rows already right count "
        "less.",
    )
    focal_gamma: float = Field(
        2.0, ge=0, description="Exponent of the focal loss (0: cross-entropy); only with class_balance 'focal'."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Mixed precision; auto: bf16 where the chip multiplies it fast, else fp16 on a GPU, else fp32.",
    )
    engine: Literal["auto", "packed", "padded"] = Field(
        "auto",
        description="How a batch is computed, with the same results; packed: rows concatenated, without padding; padded: "
        "through the stock forward; auto: packed on a CPU, for encoders that have a packed form.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Capture whole training steps of the packed engine as CUDA graphs and replay them, with the same results; "
        "not yet measured on a GPU.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations to save memory; uses the padded engine."
    )
    log_every_steps: int = Field(100, ge=1, description="Optimiser steps between lines of metrics.jsonl (steps).")
    save_every_steps: int | None = Field(
        None, ge=1, description="Optimiser steps between extra checkpoints; unset: at each epoch's end only (steps)."
    )
    best_metric: Literal["accuracy", "macro_f1", "loss"] = Field(
        "accuracy",
        description="Validation metric that chooses the epoch to keep; ties go to the lower loss, then to the earlier epoch. "
        "With several labels per row, accuracy counts only rows with every label right, so macro_f1 is the better choice.",
    )
    early_stopping_epochs: int | None = Field(
        None, ge=1, description="Stop after this many epochs without improvement; unset: never (epochs)."
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Random seed of split, initial weights, row order and dropout.")

    @model_validator(mode="after")
    def _checkpointing_is_padded(self) -> "TrainSettings":
        if self.gradient_checkpointing and self.engine == "packed":
            raise ValueError(
                "gradient_checkpointing is true and engine is 'packed', which keeps little enough to need none: set "
                "train.gradient_checkpointing=false, or train.engine=padded"
            )
        return self

    @property
    def engine_setting(self) -> str:
        """`engine`, which gradient checkpointing decides where it is left open."""
        return "padded" if self.gradient_checkpointing else self.engine


class EvaluationSettings(Section):
    """What is made of the validation rows when training has ended."""

    calibrate: bool = Field(
        True,
        description="Calibrate probabilities by a temperature fitted on the validation rows; labels stay the same. false: "
        "temperature 1.",
    )
    tune_thresholds: bool = Field(
        True,
        description="With several labels per row, tune each label's probability threshold to its best F1 on the validation "
        "rows. false: 0.5 for all.",
    )


class Recipe(Section):
    """Everything a run is made of."""

    name: str = Field(
        "seed",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the recipe, part of the run folder's name; a recipe file without it takes the file's name.",
    )
    description: str = Field("", description="One line on what the recipe is for.")
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @field_validator("description")
    @classmethod
    def _one_line(cls, value: str) -> str:
        return " ".join(value.split())

    @model_validator(mode="after")
    def _validation_is_not_test(self) -> "Recipe":
        if self.data.test is not None and self.data.test in (self.data.source, self.data.validation):
            raise ValueError(
                f"data.test is '{self.data.test}', the same rows as data.source or data.validation: a test on rows "
                "that trained or chose the model says nothing. Name other rows, or leave data.test out"
            )
        return self


_Model = TypeVar("_Model", bound=Section)
_SECTIONS = [name for name, field in Recipe.model_fields.items() if isinstance(field.default, Section)]


def setting_fields(model: type[Section] = Recipe) -> Iterator[tuple[str, Any]]:
    """Every setting as ('section.name', pydantic FieldInfo), in order; of a model without sections by its name alone."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for key, inner in section.model_fields.items():
                yield f"{name}.{key}", inner
        else:
            yield name, field


def setting_values(recipe: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """As `setting_fields`, each with its value in a recipe behind."""
    for key, field in setting_fields():
        section, _, name = key.rpartition(".")
        yield key, field, getattr(getattr(recipe, section) if section else recipe, name)


def in_words(value: Any) -> str:
    """A setting's value in a sentence; but for lists, as --set takes it."""
    if isinstance(value, (tuple, list)):
        return ", ".join(value) or "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)


def bundled_recipes() -> dict[str, str]:
    """Name -> TOML text of the recipes inside the package."""
    folder = resources.files("newslora") / "recipes"
    return {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(".toml")
    }


def load_recipe(recipe: "str | Path | Recipe" = "seed", changes: Mapping[str, Any] | None = None) -> Recipe:
    """A bundled recipe's name, a TOML file's path or a Recipe -> Recipe, with dotted-key changes laid over it.

    Raises:
        SettingsError: no such recipe, no valid TOML, an unknown setting, or a value outside its range.

    Example:
        >>> load_recipe("seed", {"train.epochs": 1, "data.max_length": 128}).train.epochs
        1
    """
    _refuse_no_settings(changes)
    values = recipe.model_dump() if isinstance(recipe, Recipe) else _read_toml(recipe)
    if "data.label_names" in (changes or {}):  # the demand was for the recipe's own
        _lay_over(values, "data.require_all_names", None)
    for key, value in (changes or {}).items():
        _lay_over(values, key, value)
    return make_recipe(values)


def data_changes(changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Changes to how rows are read, under their full names; `text_columns` is `data.text_columns`.

    Raises:
        SettingsError: one of another section, which a trained run cannot change.
    """
    _refuse_no_settings(changes)
    found = {
        f"data.{key}" if key in DataSettings.model_fields else key: value for key, value in (changes or {}).items()
    }
    if odd := [key for key in found if not key.startswith("data.")]:
        raise SettingsError(f"A trained run cannot change '{odd[0]}'; only settings of the section data go here.")
    return found


def _refuse_no_settings(changes: object) -> None:
    if changes is not None and not isinstance(changes, Mapping):
        raise SettingsError(
            f"The changes are {changes!r:.60}, a {type(changes).__name__}. Allowed: a dict of settings and their values, such "
            "as {'data.label_column': 'topic'}."
        )


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Nested values -> Recipe; errors as in `validated`."""
    return validated(Recipe, values)


def validated(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Settings of these values.

    Raises:
        SettingsError: one that cannot be used, or two that do not fit together, in sentences.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(sentence(item) for item in error.errors())) from None


def parse_assignment(text: str, model: type[Section] = Recipe) -> tuple[str, Any]:
    """`'train.epochs=3'` -> `('train.epochs', 3)`; the value is TOML, and a bare word counts as a string.

    Where the setting is text, so does a bare number or date: `data.label_column=1`, `name=2026-01-31`. In a list of names
    too, for a shell takes the quotes out of `["title","text"]`. The settings are those of `model`.

    Raises:
        SettingsError: no =, or nothing before it.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise SettingsError(f"The setting '{text}' (--set) is not key=value. Example: --set train.epochs=3")
    key, value = key.strip(), value.strip()
    kind = next((field.annotation for name, field in setting_fields(model) if name == key), None)
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, _bare_list(value) if kind in _NAMES else value
    if isinstance(parsed, list) and kind in _NAMES:
        return key, [str(one) if type(one) is int else one for one in parsed]
    return key, value if kind in (*_TEXT, *_NAMES) and not isinstance(parsed, str) else parsed


def _bare_list(value: str) -> str | list[str]:
    """`'[title, text]'` -> its names; any other text as it is."""
    if not re.fullmatch(r"\[[^\[\]\"']*\]", value):
        return value
    return [name for part in value[1:-1].split(",") if (name := part.strip())]


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, each setting under its description; unset settings appear as comments."""
    lines: list[str] = []
    section = ""
    for key, field, value in setting_values(recipe):
        head, _, name = key.rpartition(".")
        if head != section:
            lines += ["", f"[{head}]"]
            section = head
        lines.append(f"# {field.description}")
        lines.append(f"# {name} is unset" if value is None else f"{name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: bool | float | str | tuple[str, ...]) -> str:
    """As JSON writes it, which is TOML too but for one character that JSON lets stand bare."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_toml(recipe: str | Path) -> dict[str, Any]:
    bundled = bundled_recipes()
    if not isinstance(recipe, (str, os.PathLike)):
        raise SettingsError(
            f"A recipe is a bundled one's name ({', '.join(bundled)}), a TOML file's path or a newslora.Recipe, not "
            f"{type(recipe).__name__}. Settings go beside it: load_recipe('seed', {{'train.epochs': 1}})."
        )
    if str(recipe) in bundled:
        return tomllib.loads(bundled[str(recipe)])
    path = Path(recipe)
    if not path.is_file():
        raise SettingsError(
            f"There is no recipe '{recipe}': neither a bundled one ({', '.join(bundled)}) nor a TOML file "
            f"of that path.{near(str(recipe), bundled)}"
        )
    try:
        return {"name": _name_of(path), **tomllib.loads(path.read_text(encoding="utf-8"))}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The recipe {path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"The recipe {path} cannot be read: {error.strerror}.") from None


def _name_of(path: Path) -> str:
    """A recipe file's own name, for a recipe that gives none: 'seed' is the reference recipe's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "recipe"


def _lay_over(values: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key; a `None` removes it, so the default stands again."""
    if key in _SECTIONS:
        own = next(name for name in _known() if name.startswith(f"{key}."))
        raise SettingsError(f"'{key}' is a section of settings. Name one of its own, such as '{own}'.")
    if key not in _known():
        raise SettingsError(f"There is no setting '{key}'.{_near_setting(key)} `newslora settings` lists them all.")
    head, _, name = key.rpartition(".")
    owner = values.setdefault(head, {}) if head else values
    if not isinstance(owner, dict):
        raise SettingsError(f"The recipe gives {head} as {owner!r}, where a table [{head}] belongs.")
    if value is None:
        owner.pop(name, None)
    else:
        owner[name] = os.fspath(value) if isinstance(value, os.PathLike) else value


def _known() -> list[str]:
    return [name for name, _ in setting_fields()]


def _near_setting(key: str) -> str:
    """Offers settings and sections spelled alike, else those called so in some section ('seed' -> 'train.seed').

    A name of transformers' or PEFT's is told for what it is called here, however alike it may be to some other.
    """
    if told := said_here(key):
        return told
    section, dot, own = key.rpartition(".")
    # a section's name is no likeness: 'train.lx' is not 'train.seed'
    others = [
        name
        for name in _known()
        if not dot or not name.startswith(f"{section}.") or near(own, [name.rpartition(".")[2]])
    ]
    alike = near(key, others if dot else [*others, *Recipe.model_fields])
    called = [repr(name) for name in _known() if name.rpartition(".")[2] == own]
    return f" Did you mean {' or '.join(called)}?" if called and not alike else alike


def fault(item: Any) -> tuple[str, str]:
    """One of pydantic's validation errors: where it is, and what is wrong there, as a sentence goes on."""
    told = str(item["msg"]).removeprefix("Value error, ")
    return ".".join(str(part) for part in item["loc"]), told[:1].lower() + told[1:]


def sentence(item: Any) -> str:
    """One of pydantic's validation errors, in words."""
    key, told = fault(item)
    if item["type"] == "password":
        return f"{key}: {item['msg']}"
    if item["type"] == "extra_forbidden":
        return f"There is no setting '{key}'.{_near_setting(key)}"
    if not key:
        return f"{told}."
    if item["type"] == "tuple_type":
        return f'{key} is {item["input"]!r}: names are written as \'{key}=["one","other"]\'.'
    return f"{key} is {_shown(item['input'])}: {told}."


def _shown(value: Any) -> str:
    """A value that was given, in a line: a table or a long text only hides what is wrong with it."""
    text = repr(value)
    if "\n" in text:
        return f"a {type(value).__name__}"
    return shortened(text, VALUE_SHOWN)

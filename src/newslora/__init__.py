"""newslora: fine-tune a pretrained text encoder with LoRA into a news classifier, and know how good it is.

Everything public is imported on first use, so `import newslora` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newslora.auditing.audit import audit
    from newslora.config import Recipe, load_recipe
    from newslora.errors import InterruptedRun, NewsloraError
    from newslora.estimator import NewsClassifier
    from newslora.evaluation.compare import compare
    from newslora.evaluation.evaluate import evaluate
    from newslora.explanation.attributions import Explanation, explain
    from newslora.exporting.export import Exported, export
    from newslora.pipeline import resume, train
    from newslora.predict.classifier import Classifier, Prediction
    from newslora.prediction import predict_file

__version__ = "0.1.0"

_HOME = {
    "Classifier": "newslora.predict.classifier",
    "Explanation": "newslora.explanation.attributions",
    "Exported": "newslora.exporting.export",
    "InterruptedRun": "newslora.errors",
    "NewsClassifier": "newslora.estimator",
    "NewsloraError": "newslora.errors",
    "Prediction": "newslora.predict.classifier",
    "Recipe": "newslora.config",
    "audit": "newslora.auditing.audit",
    "compare": "newslora.evaluation.compare",
    "evaluate": "newslora.evaluation.evaluate",
    "explain": "newslora.explanation.attributions",
    "export": "newslora.exporting.export",
    "load_recipe": "newslora.config",
    "predict_file": "newslora.prediction",
    "resume": "newslora.pipeline",
    "train": "newslora.pipeline",
}

__all__ = [
    "Classifier", "Explanation", "Exported", "InterruptedRun", "NewsClassifier", "NewsloraError", "Prediction", "Recipe",
    "audit", "compare", "evaluate", "explain", "export", "load_recipe", "predict_file", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        from newslora.errors import near

        raise AttributeError(f"module 'newslora' has no attribute '{name}'.{near(name, _HOME)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])

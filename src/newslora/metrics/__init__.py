"""Labels and probabilities -> numbers, most with 95 % intervals. Pure; scikit-learn and scipy do the arithmetic."""

from newslora.metrics.basic import Labels, Logits, Probabilities, quick_metrics, softmax
from newslora.metrics.single_label import full_metrics

__all__ = ["Labels", "Logits", "Probabilities", "full_metrics", "quick_metrics", "softmax"]

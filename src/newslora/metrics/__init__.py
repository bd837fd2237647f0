"""Labels and probabilities -> numbers, most with 95 % intervals. Pure; scikit-learn and scipy do the arithmetic."""

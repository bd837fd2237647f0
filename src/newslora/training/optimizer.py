"""AdamW and the learning-rate schedule, torch's and transformers' own."""

from typing import TYPE_CHECKING

from newslora.config import TrainSettings
from newslora.model.classifier import trainable_parameters

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.optim.lr_scheduler import LRScheduler


def make_optimizer(model: "PeftModel", settings: TrainSettings, device: "torch.device") -> "torch.optim.AdamW":
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over the trainable parameters.

    Matrices decay; biases and norms (one dimension) do not, as in the stock Trainer. On a GPU the learning rate is a number
    on the device, which captured steps read.
    """
    import torch

    def rate() -> "float | torch.Tensor":
        if device.type != "cuda":
            return settings.learning_rate
        return torch.tensor(settings.learning_rate, device=device)

    parameters = [parameter for _, parameter in trainable_parameters(model)]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay, "lr": rate()},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "lr": rate()},
    ]
    return torch.optim.AdamW(
        groups,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,  # one kernel for all parameters, as the stock Trainer's default
    )


def make_scheduler(optimizer: "torch.optim.Optimizer", settings: TrainSettings, total_steps: int) -> "LRScheduler":
    """The named schedule of transformers over `total_steps` optimiser steps, warm-up included."""
    from transformers import get_scheduler

    scheduler: LRScheduler = get_scheduler(settings.schedule, optimizer, settings.warmup_steps, total_steps)
    return scheduler

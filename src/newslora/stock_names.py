"""What settings are called in transformers' TrainingArguments and scripts and in PEFT's LoraConfig, and what is said here.

Nothing is taken under these names, for one setting with two names is one too many: a refusal says which to write.
"""

# their name -> our setting of the same meaning and values
SAME = {
    "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "train_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "train.evaluation_batch_size",
    "eval_batch_size": "train.evaluation_batch_size",
    "gradient_accumulation_steps": "train.accumulation_steps",
    "lr": "train.learning_rate",
    "lr_scheduler_type": "train.schedule",
    "max_grad_norm": "train.max_gradient_norm",
    "activation_checkpointing": "train.gradient_checkpointing",
    "logging_steps": "train.log_every_steps",
    "save_steps": "train.save_every_steps",
    "metric_for_best_model": "train.best_metric",
    "early_stopping_patience": "train.early_stopping_epochs",
    "data_seed": "train.seed",
    "random_state": "train.seed",
    "dataloader_num_workers": "data.workers",
    "max_seq_length": "data.max_length",
    "model_max_length": "data.max_length",
    "max_train_samples": "data.train_rows",
    "dataset_name": "data.source",
    "train_file": "data.source",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "text_column_name": "data.text_columns",
    "text_column_names": "data.text_columns",
    "label_column_name": "data.label_column",
    "model_name_or_path": "model.backbone",
    "base_model_name_or_path": "model.backbone",
    "model_revision": "model.revision",
    "hidden_dropout_prob": "model.hidden_dropout",
    "attention_probs_dropout_prob": "model.attention_dropout",
    "r": "lora.rank",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "run_name": "name",
}
_EPOCHS_END = "Each epoch ends with an evaluation and a checkpoint; train.save_every_steps adds checkpoints between."
_HEAD = "The head is always trained and saved, and nothing else beside LoRA."
# their name -> what is done in its place
OTHERWISE = {
    "fp16": "Write train.precision=fp16.",
    "bf16": "Write train.precision=bf16.",
    "warmup_ratio": "Warm-up is counted: train.warmup_steps takes the ratio times all optimiser steps, which "
    "`newslora train --dry-run` tells.",
    "max_steps": "A run is as long as its epochs: set train.epochs, or use fewer rows by data.train_rows.",
    "train_sampling_strategy": "Rows of like length go together with train.group_by_length=true.",
    "optim": "The optimiser is AdamW; its numbers are train.learning_rate, train.weight_decay and train.adam_beta1, "
    "train.adam_beta2, train.adam_epsilon.",
    "class_weight": "Rare labels get more with train.class_balance=weights, or focal.",
    "class_weights": "Rare labels get more with train.class_balance=weights, or focal.",
    "target_modules": "lora.targets takes query-value or all-linear; which modules those are, each encoder family knows.",
    "modules_to_save": _HEAD,
    "bias": _HEAD,
    "use_rslora": "For the scale alpha / sqrt(rank), set lora.alpha to alpha * sqrt(rank).",
    "eval_strategy": _EPOCHS_END,
    "evaluation_strategy": _EPOCHS_END,
    "eval_steps": _EPOCHS_END,
    "save_strategy": _EPOCHS_END,
    "load_best_model_at_end": "The best epoch is always what is kept; train.best_metric says by what.",
    "greater_is_better": "That follows from train.best_metric.",
    "num_labels": "Labels are learnt from the rows; data.label_names names those that are numbers.",
    "output_dir": "The run's folder is `newslora train --output FOLDER`.",
    "resume_from_checkpoint": "A run is continued by `newslora train --resume FOLDER`.",
    "use_cpu": "The device is `newslora train --device cpu`.",
    "no_cuda": "The device is `newslora train --device cpu`.",
}


def our_setting(name: str) -> str | None:
    """The setting that one of their names, as of a flag or behind a section's name, stands for; None: none does."""
    return SAME.get(_own(name))


def said_here(name: str) -> str:
    """A sentence on what to write in the place of one of their names, after a space; nothing where it is none."""
    if (ours := our_setting(name)) is not None:
        return f" Here it is called '{ours}'."
    told = OTHERWISE.get(_own(name))
    return "" if told is None else f" {told}"


def _own(name: str) -> str:
    return name.rpartition(".")[2].replace("-", "_")

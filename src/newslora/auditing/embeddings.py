"""Texts -> vectors of a pretrained encoder that no label of theirs has touched."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Rows, load_batches, sorted_batches
from newslora.data.tokens import tokenize
from newslora.model.backbones import Backbone
from newslora.model.classifier import quiet_transformers
from newslora.runtime import pick_device, resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}  # a forward pass, padding counted


def embed(
    backbone: Backbone,
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    max_length: int,
    device: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float32]:
    """(R, H) means of the last hidden states over each text's tokens (Reimers and Gurevych 2019, arXiv:1908.10084).

    The weights are the pretrained ones, without any adapter: one trained on these rows would know their labels.

    Raises:
        BackboneError, NetworkError: the backbone cannot be had.
        SettingsError: a device that is not here.
    """
    import torch
    from transformers import AutoModel

    target = pick_device(device)
    precision = resolve_precision("auto", target)
    with quiet_transformers():
        model = backbone.load(AutoModel.from_pretrained, use_safetensors=True, dtype=precision.dtype).eval().to(target)
    rows = Rows.unlabelled(tokenize(tokenizer, texts, max_length), int(tokenizer.pad_token_id))
    plan = sorted_batches(rows.tokens.lengths, batch_tokens=BATCH_TOKENS[target.type])
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for chunk, padded in zip(plan, load_batches(rows, plan, Rows.batch, workers=0, pin=False), strict=True):
            batch = padded.to(target)
            hidden = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
            mask = batch.attention_mask.unsqueeze(-1)
            found[chunk] = ((hidden.float() * mask).sum(1) / mask.sum(1)).cpu().numpy()
            progress(len(chunk))
    return found

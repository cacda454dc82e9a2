"""A network that transformers runs, in the form of ours, so that the same measurements take both."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from insight.runtime.errors import CheckpointError


def has_transformers() -> bool:
    """Whether transformers is installed; it is not needed for reading or writing its folders."""
    return importlib.util.find_spec("transformers") is not None


class TransformersNetwork(nn.Module):
    """The network in a folder, run by transformers without any code of the folder.

    Its scores take the place of hidden states, so :meth:`logits` gives back what it gets.

    Raises:
        CheckpointError: transformers cannot load it, or misses tensors.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        with _silence():
            try:
                config = AutoConfig.from_pretrained(folder, local_files_only=True)
                # transformers' other kernels leave the cap of the scores out (Gemma 2).
                caps = getattr(config, "attn_logit_softcapping", None) is not None
                kernel = {"attn_implementation": "eager"} if caps else {}
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    folder,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    **kernel,
                )
                self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # the library raises errors of many kinds
                reason = " ".join(str(error).split())[:200]
                raise CheckpointError(
                    f"{folder}: transformers cannot load it ({reason})", "report this"
                ) from error
        self.network, report = loaded
        wrong = [
            name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[key]
        ]
        if wrong:
            raise CheckpointError(f"{folder}: transformers does not know or misses {sorted(wrong)[0]}", "")
        self.embedding = self.network.get_input_embeddings()
        self.vocabulary_size = int(self.embedding.weight.shape[0])
        self.config: Any = config
        self.eval()

    @property
    def name(self) -> str:
        """The class of the network."""
        return type(self.network).__name__

    def forward(self, input_ids: Tensor) -> Tensor:
        """Scores of the next token, ``(batch, sequence, vocabulary_size)``."""
        scores: Tensor = self.network(input_ids=input_ids, use_cache=False).logits
        return scores

    def logits(self, hidden: Tensor) -> Tensor:
        """The scores themselves."""
        return hidden

    def continue_greedily(self, input_ids: Tensor, num_tokens: int) -> Tensor:
        """The ``num_tokens`` most likely tokens after each row, ``(batch, num_tokens)``, with a cache."""
        with torch.inference_mode(), _silence():
            ids = self.network.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                num_beams=1,
                min_new_tokens=num_tokens,
                max_new_tokens=num_tokens,
                eos_token_id=None,
                pad_token_id=0,
                temperature=None,
                top_k=None,
                top_p=None,
            )
        new: Tensor = ids[:, input_ids.shape[1] :].detach().clone()
        return new


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep transformers' warnings and progress bars away from the user's terminal."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    before = logging.get_verbosity()
    had_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if had_bars:
            logging.enable_progress_bar()

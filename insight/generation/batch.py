"""A network and many prompts → as many texts, side by side in one cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.generation.evaluation_mode import evaluation_mode
from insight.generation.generator import FinishReason, Generation, first_ids, newest_half
from insight.generation.sampler import sample_rows
from insight.generation.settings import GenerationSettings
from insight.generation.text_stream import TextStream
from insight.models import Decoder


def generate_batch(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompts: Sequence[str],
    settings: GenerationSettings,
    seeds: Sequence[int],
) -> list[Generation]:
    """Continue every prompt, each as :func:`insight.generation.generate` would with its own seed.

    There is no padding: all rows read as many tokens as the shortest prompt has, then one token at a time,
    and a row whose prompt goes on takes its next token from there instead of from the sampler. So every
    row sees exactly its own text. (Sums in floating point depend on the number of rows, so a text can
    differ from that of :func:`generate` where two tokens are equally likely up to rounding; the same batch
    always gives the same texts.)

    Args:
        network: The model; its mode is restored.
        tokenizer: Its tokenizer.
        prompts: Texts to continue; may be empty. The closer their lengths, the less work.
        settings: How; its own seed is not used.
        seeds: One a prompt.

    Raises:
        ConfigError: A prompt does not fit into the context and ``overflow`` is ``error``.
    """
    if not prompts:
        return []
    context, device = network.config.max_sequence_length, network.head_weight.device
    rows = [
        _Row(tokenizer, prompt, settings, context, torch.Generator(device=device).manual_seed(seed))
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    with evaluation_mode(network):
        _write(network, rows, settings, context, device)
    return [row.result() for row in rows]


def _write(
    network: Decoder, rows: Sequence[_Row], settings: GenerationSettings, context: int, device: torch.device
) -> None:
    length = min(len(row.window) for row in rows)
    cache = network.make_cache(len(rows), context)
    unread = [row.window[:length] for row in rows]
    while True:
        hidden = network(torch.tensor(unread, device=device), cache=cache)
        writing = [index for index, row in enumerate(rows) if len(row.window) == length and not row.done]
        if writing:
            scores = network.logits(hidden[writing, -1])
            chosen = sample_rows(scores, settings, [rows[index].generator for index in writing])
            for index, token_id in zip(writing, chosen.tolist(), strict=True):
                rows[index].push(token_id)
        if all(row.done for row in rows):
            return
        for row in rows:
            row.fill_up(length + 1)
        length += 1
        if length <= context:
            unread = [[row.window[length - 1]] for row in rows]
        else:  # no prompt is longer than the context, so all rows are equally long here
            for row in rows:
                row.slide(context)
            length = len(rows[0].window)
            cache = network.make_cache(len(rows), context)
            unread = [list(row.window) for row in rows]


class _Row:
    """One text in the making.

    Attributes:
        window: The tokens in the context: read ones, then those of the prompt that are still to be read.
        generator: What its samples are drawn from.
        done: Whether nothing more will be written.
    """

    def __init__(
        self,
        tokenizer: BaseTokenizer,
        prompt: str,
        settings: GenerationSettings,
        context: int,
        generator: torch.Generator,
    ) -> None:
        ids = first_ids(tokenizer, prompt, settings, context)
        self.window = newest_half(ids, context) if len(ids) > context else ids
        self.generator = generator
        self.done = False
        self._num_prompt_tokens = len(ids) - 1
        self._num_forgotten = len(ids) - len(self.window)
        self._tokenizer = tokenizer
        self._settings = settings
        self._stream = TextStream(settings.stop)
        self._text: list[str] = []
        self._new_ids: list[int] = []
        self._finish_reason: FinishReason = "length"

    def push(self, token_id: int) -> None:
        """Take a sampled token."""
        self.window.append(token_id)
        self._new_ids.append(token_id)
        if token_id == self._tokenizer.end_of_text_id:
            self._finish_reason, self.done = "end_of_text", True
            return
        self._text.append(self._stream.push(self._tokenizer.token_bytes(token_id)))
        if self._stream.stopped:
            self._finish_reason, self.done = "stop", True
        self.done |= len(self._new_ids) >= self._settings.max_new_tokens

    def fill_up(self, length: int) -> None:
        """Keep a finished row as long as the others; nobody looks at what it goes on with."""
        while len(self.window) < length:
            self.window.append(self._tokenizer.end_of_text_id)

    def slide(self, context: int) -> None:
        """Forget the older half."""
        kept = newest_half(self.window, context)
        self._num_forgotten += 0 if self.done else len(self.window) - len(kept)
        self.window = kept

    def result(self) -> Generation:
        """The finished text."""
        return Generation(
            "".join([*self._text, self._stream.finish()]),
            tuple(self._new_ids),
            self._finish_reason,
            self._num_prompt_tokens,
            self._num_forgotten,
        )

"""A network and a prompt → text, token by token, with a cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.generation.sampler import sample
from insight.generation.settings import GenerationSettings
from insight.generation.text_stream import TextStream
from insight.models import Decoder
from insight.runtime.errors import ConfigError

FinishReason = Literal["length", "stop", "end_of_text"]


@dataclass(frozen=True)
class Generation:
    """A finished continuation.

    Attributes:
        text: What was written, without the prompt.
        token_ids: The sampled tokens, a final end-of-text included.
        finish_reason: ``length``, ``stop`` (a stop string) or ``end_of_text``.
        num_prompt_tokens: Tokens of the prompt.
        num_forgotten_tokens: Oldest tokens that had left the context by the end (``overflow="slide"``).
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_forgotten_tokens: int


class TextGenerator:
    """One continuation: iterate over it for text pieces, then ask :attr:`result`.

    A prompt begins after an end-of-text token, as documents do in training. When the context is full and
    ``overflow`` is ``slide``, the older half is forgotten and the newer half read again, so that the cost
    of a token stays bounded.

    Args:
        network: The model; it is put into evaluation mode while it writes.
        tokenizer: Its tokenizer.
        prompt: Text to continue; may be empty.
        settings: How.

    Raises:
        ConfigError: The prompt does not fit into the context and ``overflow`` is ``error``.
    """

    def __init__(
        self, network: Decoder, tokenizer: BaseTokenizer, prompt: str, settings: GenerationSettings
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._settings = settings
        self._context = network.config.max_sequence_length
        self._ids = first_ids(tokenizer, prompt, settings, self._context)
        self._num_prompt_tokens = len(self._ids) - 1
        self._num_forgotten = 0
        self._new_ids: list[int] = []
        self._text: list[str] = []
        self._finish_reason: FinishReason = "length"

    @property
    def result(self) -> Generation:
        """What has been written so far."""
        return Generation(
            "".join(self._text),
            tuple(self._new_ids),
            self._finish_reason,
            self._num_prompt_tokens,
            self._num_forgotten,
        )

    def __iter__(self) -> Iterator[str]:
        settings, stream = self._settings, TextStream(self._settings.stop)
        device = self._network.head_weight.device
        generator = torch.Generator(device=device).manual_seed(settings.seed)
        was_training = self._network.training
        self._network.eval()
        try:
            for token_id in self._tokens(device, generator):
                self._new_ids.append(token_id)
                if token_id == self._tokenizer.end_of_text_id:
                    self._finish_reason = "end_of_text"
                    break
                if piece := stream.push(self._tokenizer.token_bytes(token_id)):
                    self._text.append(piece)
                    yield piece
                if stream.stopped:
                    self._finish_reason = "stop"
                    break
            if piece := stream.finish():
                self._text.append(piece)
                yield piece
        finally:
            self._network.train(was_training)

    def _tokens(self, device: torch.device, generator: torch.Generator) -> Iterator[int]:
        cache = self._network.make_cache(1, self._context)
        window = self._trim(self._ids)
        unread = window
        for _ in range(self._settings.max_new_tokens):
            with torch.inference_mode():
                hidden = self._network(torch.tensor([unread], device=device), cache=cache)
                scores = self._network.logits(hidden[:, -1])
                token_id = int(sample(scores, self._settings, generator))
            yield token_id
            window = [*window, token_id]
            if len(window) > self._context:
                cache = self._network.make_cache(1, self._context)
                window = self._trim(window)
                unread = window
            else:
                unread = [token_id]

    def _trim(self, ids: list[int]) -> list[int]:
        if len(ids) <= self._context:
            return ids
        kept = newest_half(ids, self._context)
        self._num_forgotten += len(ids) - len(kept)
        return kept


def first_ids(tokenizer: BaseTokenizer, prompt: str, settings: GenerationSettings, context: int) -> list[int]:
    """What a network reads first: the end of another text, then the prompt.

    Raises:
        ConfigError: Prompt and text exceed ``context`` tokens and ``overflow`` is ``error``.
    """
    ids = [tokenizer.end_of_text_id, *(tokenizer.encode(prompt) if prompt else [])]
    if settings.overflow == "error" and len(ids) + settings.max_new_tokens - 1 > context:
        raise ConfigError(
            f"the prompt has {len(ids) - 1} tokens and max_new_tokens={settings.max_new_tokens}, but "
            f"the context holds {context} (max_sequence_length)",
            f"shorten the prompt, use max_new_tokens={context - len(ids) + 1} or overflow=slide"
            if len(ids) <= context
            else "shorten the prompt or use overflow=slide",
        )
    return ids


def newest_half(ids: list[int], context: int) -> list[int]:
    """What is read again when the context is full."""
    return ids[-max(1, context // 2) :]


def stream(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompt: str,
    settings: GenerationSettings = GenerationSettings(),
) -> Iterator[str]:
    """Text pieces as they are written; see :class:`TextGenerator`."""
    return iter(TextGenerator(network, tokenizer, prompt, settings))


def generate(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompt: str,
    settings: GenerationSettings = GenerationSettings(),
) -> Generation:
    """The whole continuation; see :class:`TextGenerator`."""
    writer = TextGenerator(network, tokenizer, prompt, settings)
    for _ in writer:
        pass
    return writer.result

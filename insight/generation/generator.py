"""A network and a prompt → text, token by token, with a cache."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from insight.data.tokenizers import BaseTokenizer
from insight.generation.sampler import sample, sample_rows
from insight.generation.settings import GenerationSettings
from insight.models import Decoder
from insight.runtime.errors import ConfigError


@contextlib.contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; the mode before it comes back after it."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


class TextStream:
    """Turns bytes that arrive token by token into text.

    A character whose bytes are not complete yet is held back, and so is an ending that could become a stop
    string.

    Args:
        stop: Strings that end the text; they are not part of it.

    Attributes:
        stopped: Whether a stop string has been met.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """The text that has become certain with ``data``."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back, once nothing more will come; broken characters become U+FFFD."""
        released = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = ("" if self.stopped else self._held), ""
        return released + rest

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            released, self._held, self.stopped = self._held[: min(found)], "", True
            return released
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest ending of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)


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

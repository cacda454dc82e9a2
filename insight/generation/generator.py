"""A network and prompts → texts, token by token: one engine for one prompt or many."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from insight.data.tokenizers import BaseTokenizer
from insight.generation.modes import evaluation_mode
from insight.generation.sampler import sample_rows
from insight.generation.search import Hypothesis
from insight.generation.settings import GenerationSettings
from insight.generation.text_search import PromptIds, decoding_signature, search_texts
from insight.models import Decoder, DecoderCache
from insight.runtime.errors import ConfigError

FinishReason = Literal["length", "stop", "end_of_text"]


@dataclass(frozen=True)
class Generation:
    """A finished continuation: the text without the prompt, and its tokens with a final end of text.

    ``finish_reason`` is ``length``, ``stop`` (a stop string) or ``end_of_text``. ``num_forgotten_tokens``
    counts the oldest tokens that did not fit into the context when the last was sampled. ``hypotheses`` are
    the texts of a search with their scores, of which the first is the continuation, and ``signature`` names
    all options that decided them, in the form of sacrebleu's signatures.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_forgotten_tokens: int
    hypotheses: tuple[tuple[str, Hypothesis], ...] = ()
    signature: str = ""


def generate(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompt: str,
    settings: GenerationSettings = GenerationSettings(),
) -> Generation:
    """Write the whole continuation of one prompt; arguments and errors as in :class:`TextGenerator`."""
    writer = TextGenerator(network, tokenizer, prompt, settings)
    for _ in writer:
        pass
    return writer.result


def stream(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompt: str,
    settings: GenerationSettings = GenerationSettings(),
) -> Iterator[str]:
    """Yield one continuation piece by piece; arguments and errors as in :class:`TextGenerator`."""
    return iter(TextGenerator(network, tokenizer, prompt, settings))


def generate_batch(
    network: Decoder,
    tokenizer: BaseTokenizer,
    prompts: Sequence[str],
    settings: GenerationSettings,
    seeds: Sequence[int],
) -> list[Generation]:
    """Continue every prompt, each as :func:`generate` would with its own seed, not that of the settings.

    Floating-point sums depend on the number of rows, so a text can differ from that of :func:`generate`
    where two tokens are equally likely up to rounding. The same batch always gives the same texts. Prompts
    of similar lengths save work. Errors are those of :class:`TextGenerator`.
    """
    if not prompts:
        return []
    pairs = zip(prompts, seeds, strict=True)
    rows = [_Row(network, tokenizer, prompt, settings, seed) for prompt, seed in pairs]
    if settings.searches:
        _search(network, tokenizer, rows, settings)
        return [row.result() for row in rows]
    for _ in _steps(network, rows, settings):
        pass
    return [row.result() for row in rows]


class TextGenerator:
    """One continuation: iterate over it for pieces of text, then read :attr:`result`.

    A prompt begins after an end-of-text token, as documents do in training. When the context is full and
    ``overflow`` is ``slide``, the older half is dropped and the newer half is read again, so that the cost of
    a token stays bounded.

    Args:
        network: The model. It is in evaluation mode while it writes; its modules then get their modes back.
        tokenizer: Its tokenizer. Where the head is wider than the tokenizer, the surplus scores are ignored.
        prompt: Text to continue; may be empty.
        settings: How to continue it.

    Raises:
        ConfigError: The prompt does not fit into the context and ``overflow`` is ``error``, or the tokenizer
            has more tokens than the network.
        CheckpointError: The network's scores are not finite, at the first piece of text.
    """

    def __init__(
        self, network: Decoder, tokenizer: BaseTokenizer, prompt: str, settings: GenerationSettings
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._settings = settings
        self._row = _Row(network, tokenizer, prompt, settings, settings.seed)

    def __iter__(self) -> Iterator[str]:
        if self._settings.searches:
            _search(self._network, self._tokenizer, [self._row], self._settings)
            if piece := self._row.new_text():
                yield piece
            return
        for _ in _steps(self._network, [self._row], self._settings):
            if piece := self._row.new_text():
                yield piece

    @property
    def result(self) -> Generation:
        """The text so far."""
        return self._row.result()


def cache_for(network: Decoder, batch_size: int, *lengths: int) -> DecoderCache | None:
    """Make a cache of the first possible length, or ``None`` where later tokens change earlier keys.

    Such positions (DynamicNTKScaling, LongRopeScaling with short and long factors) are computed anew at every
    step beyond the length that they were made for. Equal lengths in all calls save a compiled network graphs.
    """
    for length in lengths:
        with contextlib.suppress(ConfigError):  # the numbers are valid, so only the positions can refuse
            return network.make_cache(batch_size, length)
    return None


def _steps(network: Decoder, rows: Sequence[_Row], settings: GenerationSettings) -> Iterator[None]:
    """Extend every row until all are done, and yield after each step.

    There is no padding: all rows first read as many tokens as the shortest prompt has, then one token at a
    time. A longer prompt gives its row the next token in place of the sampler.
    """
    context, device = network.config.max_sequence_length, network.head_weight.device
    longest = min(context, max(len(row.window) for row in rows) + settings.max_new_tokens)
    start, length = 0, min(len(row.window) for row in rows)
    with evaluation_mode(network):
        cache = cache_for(network, len(rows), context, longest)
        while not all(row.done for row in rows):
            unread = torch.tensor([row.window[start:length] for row in rows], device=device)
            writing = [index for index, row in enumerate(rows) if len(row.window) == length and not row.done]
            with torch.inference_mode():  # not around the yield: the caller may train in between
                hidden = network(unread, cache=cache)
                if writing:
                    scores = network.logits(hidden[writing, -1])[:, : rows[0].num_tokens]
                    chosen = sample_rows(scores, settings, [rows[index].generator for index in writing])
                    for index, token_id in zip(writing, chosen.tolist(), strict=True):
                        rows[index].push(token_id)
            yield
            for row in rows:
                row.fill_up(length + 1)
            if length < context:
                start, length = (0 if cache is None else length), length + 1
            else:  # no prompt is longer than the context, so all rows are equally long here
                for row in rows:
                    row.slide(context)
                start, length = 0, len(rows[0].window)
                cache = cache_for(network, len(rows), context, longest)


def _search(
    network: Decoder, tokenizer: BaseTokenizer, rows: Sequence[_Row], settings: GenerationSettings
) -> None:
    """Give every row the texts of a search."""
    prompts = [PromptIds(row.prompt, row.window, row.seed) for row in rows]
    for row, found in zip(rows, search_texts(network, tokenizer, prompts, settings), strict=True):
        row.take(found)


class _Row:
    """One text that is being written.

    ``window`` holds the tokens in the context: those already read, then those of the prompt still to be read.
    """

    def __init__(
        self, network: Decoder, tokenizer: BaseTokenizer, prompt: str, settings: GenerationSettings, seed: int
    ) -> None:
        context = network.config.max_sequence_length
        # A network reads an end-of-text token first, then the prompt.
        ids = [tokenizer.end_of_text_id, *(tokenizer.encode(prompt) if prompt else [])]
        room = context - len(ids) + 1
        if settings.overflow == "error" and settings.max_new_tokens > room:
            problem = f"the prompt has {len(ids) - 1} tokens, and the context holds {context}"
            remedy = f"shorten the prompt, use max_new_tokens={room} or overflow=slide"
            if room <= 0:
                remedy = "shorten the prompt or use overflow=slide"
            problem, wanted = f"{problem} (max_sequence_length)", settings.max_new_tokens
            raise ConfigError(problem, remedy, option="max_new_tokens", value=wanted)
        self.num_tokens = tokenizer.vocabulary_size
        if self.num_tokens > network.vocabulary_size:
            problem = f"the tokenizer has {self.num_tokens} tokens, the network {network.vocabulary_size}"
            raise ConfigError(problem, "use the tokenizer that the network was trained with")
        self.prompt, self.seed = prompt, seed
        self.window = _newest_half(ids, context) if len(ids) > context else ids
        self.generator = torch.Generator(device=network.head_weight.device).manual_seed(seed)
        self.done = False
        self._num_prompt_tokens = len(ids) - 1
        self._num_forgotten = len(ids) - len(self.window)
        self._tokenizer = tokenizer
        self._settings = settings
        self._stream = TextStream(settings.stop)
        self._pieces: list[str] = []
        self._num_pieces_given = 0
        self._new_ids: list[int] = []
        self._finish_reason: FinishReason = "length"
        self._hypotheses: tuple[tuple[str, Hypothesis], ...] = ()

    def push(self, token_id: int) -> None:
        """Append a sampled token."""
        self.window.append(token_id)
        self._new_ids.append(token_id)
        if token_id == self._tokenizer.end_of_text_id:
            self._finish_reason, self.done = "end_of_text", True
        else:
            self._pieces.append(self._stream.push(self._tokenizer.token_bytes(token_id)))
            if self._stream.stopped:
                self._finish_reason, self.done = "stop", True
        self.done |= len(self._new_ids) >= self._settings.max_new_tokens
        if self.done:
            self._pieces.append(self._stream.finish())

    def take(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Take the texts that a search has found, best first."""
        self._hypotheses = tuple((self._tokenizer.decode(one.token_ids), one) for one in hypotheses)
        text, best = self._hypotheses[0]
        self._pieces, self._new_ids, self.done = [text], list(best.token_ids), True
        if best.is_finished:
            self._new_ids.append(self._tokenizer.end_of_text_id)
            self._finish_reason = "end_of_text"

    def new_text(self) -> str:
        """Return the text that has become final since the last call."""
        first, self._num_pieces_given = self._num_pieces_given, len(self._pieces)
        return "".join(self._pieces[first:])

    def fill_up(self, length: int) -> None:
        """Keep a finished row as long as the others; the tokens added to it are not read."""
        self.window += [self._tokenizer.end_of_text_id] * (length - len(self.window))

    def slide(self, context: int) -> None:
        """Drop the older half of the context."""
        kept = _newest_half(self.window, context)
        self._num_forgotten += 0 if self.done else len(self.window) - len(kept)
        self.window = kept

    def result(self) -> Generation:
        """The text so far."""
        text, ids = "".join(self._pieces), tuple(self._new_ids)
        signature = decoding_signature(self._settings) if self._hypotheses else ""
        counts = (self._num_prompt_tokens, self._num_forgotten)
        return Generation(text, ids, self._finish_reason, *counts, self._hypotheses, signature)


def _newest_half(ids: list[int], context: int) -> list[int]:
    """Return the ids that are read again when the context is full."""
    return ids[-max(1, context // 2) :]


class TextStream:
    """Turns bytes that arrive token by token into text that is safe to print while it grows.

    It holds back incomplete characters, and an ending that could become one of the strings ``stop``, which
    end the text and are not part of it. ``stopped`` says whether one has been found.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Return the text that has become final with ``data``."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """Return the text held back, once no more bytes will come; incomplete characters become U+FFFD."""
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
        cut = len(self._held) - max((_overlap(self._held, stop) for stop in self._stop), default=0)
        released, self._held = self._held[:cut], self._held[cut:]
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest ending of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)

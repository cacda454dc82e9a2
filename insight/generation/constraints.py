"""Constraints of hypotheses: forced beginnings, forbidden and required phrases, repetition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

TokenIds = tuple[int, ...]


class ForbiddenTexts:
    """Texts that no hypothesis contains, whatever tokens they are made of.

    Args:
        texts: The texts; none is empty.
        token_bytes: The bytes of every token.
    """

    def __init__(self, texts: Sequence[str], token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        # For each text and each number of its bytes that stand at the end of a hypothesis: the tokens that
        # would bring in the rest.
        self._texts: list[tuple[bytes, list[list[int]]]] = []
        for text in texts:
            data = text.encode()
            completing: list[list[int]] = [[] for _ in data]
            for token, piece in enumerate(token_bytes):
                if data in piece:
                    completing[0].append(token)
                for begun in range(max(1, len(data) - len(piece)), len(data)):
                    if piece.startswith(data[begun:]):
                        completing[begun].append(token)
            self._texts.append((data, completing))

    def tokens_after(self, history: TokenIds) -> Iterator[int]:
        """Yield the tokens that would complete one of the texts."""
        longest = max(len(data) for data, _ in self._texts) - 1
        end = b""
        for token in reversed(history):
            if len(end) >= longest:
                break
            end = self._token_bytes[token] + end
        for data, completing in self._texts:
            for begun, tokens in enumerate(completing):
                if tokens and end.endswith(data[:begun]):
                    yield from tokens


class Required:
    """Something that a hypothesis must contain, in one of several spellings.

    Args:
        spellings: Token sequences; each is enough.
    """

    def __init__(self, *spellings: TokenIds) -> None:
        self.spellings = spellings
        self.size = max(map(len, spellings))
        """Tokens that count as met once it is contained."""

    def is_in(self, history: TokenIds) -> bool:
        """Whether a history contains it."""
        return any(_contains(history, spelling) for spelling in self.spellings)

    def may_begin(self, history: TokenIds, spelling: TokenIds) -> bool:
        """Whether a spelling may follow a history."""
        return True

    def progress(self, history: TokenIds) -> int:
        """Tokens of the furthest spelling that stand at the end of a history, fewer than all."""
        return max(begun for begun, _ in self._places(history))

    def next_tokens(self, history: TokenIds) -> set[int]:
        """The tokens that go on with a spelling, or begin one."""
        return {
            spelling[begun]
            for begun, spelling in self._places(history)
            if begun or self.may_begin(history, spelling)
        }

    def _places(self, history: TokenIds) -> Iterator[tuple[int, TokenIds]]:
        """Each spelling with the number of its tokens that stand at the end of a history."""
        for spelling in self.spellings:
            counts = range(min(len(spelling) - 1, len(history)), 0, -1)
            places = (
                count
                for count in counts
                if history[-count:] == spelling[:count] and self.may_begin(history[:-count], spelling)
            )
            yield next(places, 0), spelling


@dataclass(frozen=True)
class Sentence:
    """The limits and constraints of one sentence of a batch.

    Args:
        max_length: Most tokens of the hypothesis, the end token included.
        prefix: Token ids that every hypothesis begins with, scored as if they had been chosen.
        must_contain: All that every hypothesis contains.
        must_not_contain: Token sequences that no hypothesis contains.
        forbidden_texts: Texts that no hypothesis contains.
        seed: Seed of its samples.
        context: Tokens before the hypothesis, which count where sequences may not occur twice.
    """

    max_length: int
    prefix: TokenIds = ()
    must_contain: tuple[Required, ...] = ()
    must_not_contain: tuple[TokenIds, ...] = ()
    forbidden_texts: ForbiddenTexts | None = None
    seed: int = 0
    context: TokenIds = ()


class Constraints:
    """The constraints of a sentence on the next token of its hypotheses.

    Args:
        sentence: The sentence.
        no_repeat_ngram: Length of token sequences that may not occur twice; 0 allows all.
        end_id: The token that ends a hypothesis.
    """

    def __init__(self, sentence: Sentence, no_repeat_ngram: int, end_id: int) -> None:
        self.prefix, self.required = sentence.prefix, sentence.must_contain
        self._forbidden, self._texts = sentence.must_not_contain, sentence.forbidden_texts
        self._no_repeat, self._end_id, self._context = no_repeat_ngram, end_id, sentence.context
        self.forbids = bool(self._forbidden or self._texts or no_repeat_ngram)

    def forbidden(self, history: TokenIds) -> Iterator[int]:
        """Yield the tokens that may not follow a history."""
        if self._no_repeat:
            yield from _repeating((*self._context, *history), self._no_repeat)
        for phrase in self._forbidden:
            if history[len(history) - len(phrase) + 1 :] == phrase[:-1]:
                yield phrase[-1]
        if self._texts is not None:
            yield from self._texts.tokens_after(history)

    def are_met(self, history: TokenIds) -> bool:
        """Whether a history contains all that it must."""
        return all(required.is_in(history) for required in self.required)

    def helpful(self, history: TokenIds) -> Iterable[int]:
        """The tokens that begin something which is still missing, or go on with it."""
        return {token for required in self._missing(history) for token in required.next_tokens(history)}

    def share(
        self, found: list[tuple[float, int, int]], histories: Sequence[TokenIds], count: int
    ) -> list[int]:
        """Share the beam over how much of the constraints is met (Post and Vilar 2018, arXiv 1804.06609).

        Args:
            found: Extensions as sums, running hypotheses and tokens, best first.
            histories: The running hypotheses.
            count: Most extensions to take.

        Returns:
            The numbers of the extensions that are taken. Those that meet most choose first, in turns.
        """
        banks: dict[int, list[int]] = {}
        for number, (_, parent, token) in enumerate(found):
            if token != self._end_id:
                banks.setdefault(self._num_met((*histories[parent], token)), []).append(number)
            elif self.are_met(histories[parent]):
                banks.setdefault(self._num_met(histories[parent]), []).append(number)
        queues = [iter(banks[met]) for met in sorted(banks, reverse=True)]
        chosen: list[int] = []
        while queues and len(chosen) < count:
            heads = [(next(queue, None), queue) for queue in queues]
            queues = [queue for head, queue in heads if head is not None]
            chosen += [head for head, _ in heads if head is not None]
        return chosen[:count]

    def _missing(self, history: TokenIds) -> list[Required]:
        return [required for required in self.required if not required.is_in(history)]

    def _num_met(self, history: TokenIds) -> int:
        """Tokens of the constraints that a history meets, counting the furthest of the unfinished ones."""
        missing = self._missing(history)
        met = sum(one.size for one in self.required) - sum(one.size for one in missing)
        return met + max((one.progress(history) for one in missing), default=0)


def forbid(
    scores: Tensor, constraints: Sequence[Constraints], histories: Sequence[Sequence[TokenIds]]
) -> None:
    """Give tokens that are not allowed a score of minus infinity, in place.

    Args:
        scores: Log-probabilities ``(sentences, beams, vocabulary_size)``.
        constraints: The constraints of each sentence.
        histories: The running hypotheses of each sentence.
    """
    banned: list[tuple[int, int, int]] = []
    forced: list[tuple[int, int, int]] = []
    for row, (constraint, beams) in enumerate(zip(constraints, histories, strict=True)):
        if constraint.forbids:
            for beam, history in enumerate(beams):
                banned += [(row, beam, token) for token in constraint.forbidden(history)]
        length = len(beams[0])
        if length < len(constraint.prefix):
            forced += [(row, beam, constraint.prefix[length]) for beam in range(len(beams))]
    if banned:
        rows, columns, tokens = map(list, zip(*banned, strict=True))
        scores[rows, columns, tokens] = float("-inf")
    if forced:
        rows, columns, tokens = map(list, zip(*forced, strict=True))
        kept = scores[rows, columns, tokens]
        scores[rows, columns] = float("-inf")
        scores[rows, columns, tokens] = kept


def _repeating(history: TokenIds, size: int) -> Iterator[int]:
    """Yield the tokens that would complete a sequence of ``size`` tokens which the history has already."""
    newest = history[len(history) - size + 1 :] if size > 1 else ()
    if len(history) < size:
        return
    for start in range(len(history) - size + 1):
        if history[start : start + size - 1] == newest:
            yield history[start + size - 1]


def _contains(token_ids: TokenIds, phrase: TokenIds) -> bool:
    size = len(phrase)
    return any(token_ids[start : start + size] == phrase for start in range(len(token_ids) - size + 1))

"""Search for the most likely continuations: greedy and beam search over any model that scores a next token.

A sentence never depends on its neighbours: limits are those of each sentence, finished hypotheses stand
still, and equal scores are ordered by the lowest beam and then the lowest token id.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

_NEVER = float("-inf")


class ScoringModel(Protocol):
    """Scores the next token of several rows that advance together, such as a network with its cache."""

    def first_scores(self) -> torch.Tensor:
        """Log-probabilities ``(rows, vocabulary_size)`` of the first token of each row."""

    def next_scores(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Append ``token_ids`` ``(rows,)`` and score what follows, ``(rows, vocabulary_size)``."""

    def reorder(self, rows: torch.Tensor) -> None:
        """Make row i what row ``rows[i]`` was; rows may repeat and be left out."""


# ------------------------------------------------------------ the score of a finished hypothesis


@dataclass(frozen=True)
class LengthRule(Component, ABC):
    """How the score of a finished hypothesis follows from its sum of log-probabilities and its length."""

    counts_end = True
    """Whether the end token counts as a token of the length."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_number(field.name, getattr(self, field.name), 1, at_least=-100, at_most=100)

    @abstractmethod
    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The score.

        Args:
            total: Sum of the log-probabilities of all tokens, the end token included.
            length: Number of tokens, float, with or without the end token as :attr:`counts_end` says.
        """

    @property
    @abstractmethod
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""


@dataclass(frozen=True)
class MeanLogProbability(LengthRule):
    """``sum / L^power``, the end token counted, as transformers scores.

    Args:
        power: Exponent of the length: 0 scores by the sum, 1 by the mean.
    """

    power: float = 1.0

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The score; see :meth:`LengthRule.score`."""
        return total / length**self.power

    @property
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""
        return f"sum/L^{self.power:g}"


@dataclass(frozen=True)
class GNMTLength(LengthRule):
    """``sum / ((5 + L) / 6)^alpha``, the end token counted (Wu et al. 2016, arXiv 1609.08144).

    Args:
        alpha: Exponent; 0 scores by the sum.
    """

    alpha: float = 0.6

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The score; see :meth:`LengthRule.score`."""
        return total / ((5 + length) / 6) ** self.alpha

    @property
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""
        return f"sum/((5+L)/6)^{self.alpha:g}"


@dataclass(frozen=True)
class MarianLength(LengthRule):
    """``(sum - word_penalty * L) / L^normalize``, the end token counted, as Marian scores.

    Args:
        normalize: Exponent of the length; 0 does not normalise.
        word_penalty: Amount that every token costs.
    """

    normalize: float = 1.0
    word_penalty: float = 0.0

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The score; see :meth:`LengthRule.score`."""
        return (total - self.word_penalty * length) / length**self.normalize

    @property
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""
        return f"(sum-{self.word_penalty:g}L)/L^{self.normalize:g}"


@dataclass(frozen=True)
class CTranslate2Length(LengthRule):
    """``sum / L^length_penalty`` without the end token, as CTranslate2 scores; an empty text has length 1.

    Args:
        length_penalty: Exponent of the length.
    """

    length_penalty: float = 1.0
    counts_end = False

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The score; see :meth:`LengthRule.score`."""
        return total / length.clamp_min(1) ** self.length_penalty

    @property
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""
        return f"sum/L^{self.length_penalty:g}"


# ------------------------------------------------------------ settings and results


@dataclass(frozen=True)
class SearchSettings(Component):
    """How to search.

    Args:
        beam_size: Running hypotheses for each sentence; 1 is greedy search.
        num_best: Finished hypotheses that are returned for each sentence, best first.
        length_rule: How finished hypotheses are scored.
        patience: ``None`` stops exactly: when no running hypothesis can end better than the finished ones
            that are to be returned. A number stops as soon as ``round(beam_size * patience)`` hypotheses
            have finished (Kasai et al. 2022, arXiv 2204.05424; CTranslate2).
        no_repeat_ngram: Length of token sequences that may not occur twice in a hypothesis; 0 allows
            all.
    """

    beam_size: int = 5
    num_best: int = 1
    length_rule: LengthRule = MeanLogProbability()
    patience: float | None = None
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ConfigError(
                "must be at least 1",
                "use 1 for greedy search, or 5",
                option="beam_size",
                value=self.beam_size,
            )
        if not 1 <= self.num_best <= self.beam_size:
            raise ConfigError(
                f"must be from 1 to beam_size={self.beam_size}",
                "use a wider beam or fewer hypotheses",
                option="num_best",
                value=self.num_best,
            )
        if self.patience is not None and not 0 < self.patience < float("inf"):
            raise ConfigError(
                "must be a number above 0",
                "use 1, or null to stop exactly",
                option="patience",
                value=self.patience,
            )
        if self.no_repeat_ngram < 0:
            raise ConfigError(
                "must be at least 0",
                "use 3, or 0 to allow repetition",
                option="no_repeat_ngram",
                value=self.no_repeat_ngram,
            )

    @property
    def signature(self) -> str:
        """All settings that decide the result, in the form of sacrebleu's signatures."""
        stop = "exact" if self.patience is None else f"finished:{round(self.beam_size * self.patience)}"
        end = "yes" if self.length_rule.counts_end else "no"
        parts = [f"beam:{self.beam_size}", f"score:{self.length_rule.formula}", f"end:{end}", f"stop:{stop}"]
        if self.no_repeat_ngram:
            parts.append(f"norepeat:{self.no_repeat_ngram}")
        return "|".join(parts)


@dataclass(frozen=True)
class Sentence:
    """The limits and constraints of one sentence of a batch.

    Args:
        max_length: Most tokens of the hypothesis, the end token included.
        prefix: Token ids that every hypothesis begins with. They are scored as if they had been chosen.
        must_contain: Token sequences that every hypothesis contains.
        must_not_contain: Token sequences that no hypothesis contains.
    """

    max_length: int
    prefix: tuple[int, ...] = ()
    must_contain: tuple[tuple[int, ...], ...] = ()
    must_not_contain: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """A continuation that was found.

    Attributes:
        token_ids: Its tokens, without the end token.
        score: Its score by the length rule.
        log_probability: The sum of the log-probabilities of its tokens, the end token included.
        is_finished: Whether it ended by itself; otherwise its length limit ended it.
    """

    token_ids: tuple[int, ...]
    score: float
    log_probability: float
    is_finished: bool


# ------------------------------------------------------------ the search


@torch.inference_mode()
def beam_search(
    model: ScoringModel, sentences: Sequence[Sentence], end_id: int, settings: SearchSettings
) -> list[list[Hypothesis]]:
    """Find the best hypotheses of every sentence by beam search.

    Each step extends every running hypothesis by every token, ranks the extensions of a sentence, takes the
    ended ones among the best ``beam_size`` as finished, and goes on with the best ``beam_size`` others.
    Sentences that are done leave the batch.

    Args:
        model: Scores the next token; one row for each sentence at first.
        sentences: The limits and constraints of each.
        end_id: The token that ends a hypothesis.
        settings: How to search.

    Returns:
        For each sentence at most ``num_best`` hypotheses, best first; none where its constraints cannot be
        met within its length.
    """
    scores = model.first_scores()
    vocabulary_size = scores.shape[-1]
    beams = [_Beam(sentence, settings, end_id, vocabulary_size) for sentence in sentences]
    active = list(beams)
    # All rows of a sentence are equal before its first token, so one of them stands for all.
    totals = scores.new_zeros(len(beams), 1, dtype=_exact(scores.dtype))
    tokens = torch.empty(len(beams), 1, 0, dtype=torch.int64, device=scores.device)
    while active:
        width = totals.shape[1]
        extended = totals.unsqueeze(-1) + scores.view(len(active), width, -1).to(totals.dtype)
        _rule_out(extended, tokens, active, end_id, settings.no_repeat_ngram)
        values, flat = _ranked(extended.flatten(1), 2 * settings.beam_size)
        running: list[list[int]] = []
        num_running: list[int] = []
        kept_rows: list[int] = []
        still: list[_Beam] = []
        value_rows, flat_rows = values.tolist(), flat.tolist()
        for row, beam in enumerate(active):
            taken = beam.advance(value_rows[row], flat_rows[row], tokens[row], extended[row])
            if taken is None:
                continue
            still.append(beam)
            kept_rows.append(row)
            # Copies that never win keep the shape of the batch where fewer extensions are possible.
            running.append(taken + [taken[0]] * (settings.beam_size - len(taken)))
            num_running.append(len(taken))
        if not still:
            break
        numbers = torch.tensor(running, device=scores.device)
        totals = extended[kept_rows].flatten(1).gather(1, numbers)
        counts = torch.tensor(num_running, device=scores.device).unsqueeze(1)
        totals[torch.arange(settings.beam_size, device=scores.device) >= counts] = _NEVER
        rows = torch.tensor(kept_rows, device=scores.device).unsqueeze(1) * width
        parents = (rows + numbers // vocabulary_size).flatten()
        chosen = (numbers % vocabulary_size).flatten()
        tokens = torch.cat([tokens.flatten(0, 1)[parents], chosen.unsqueeze(1)], dim=1)
        tokens = tokens.view(len(still), settings.beam_size, -1)
        active = still
        model.reorder(parents)
        scores = model.next_scores(chosen)
    return [beam.results() for beam in beams]


class _Beam:
    """The hypotheses of one sentence: the finished ones, and what the running ones still need."""

    def __init__(
        self, sentence: Sentence, settings: SearchSettings, end_id: int, vocabulary_size: int
    ) -> None:
        self.sentence, self.settings, self.end_id = sentence, settings, end_id
        self._vocabulary_size = vocabulary_size
        self._length = 0
        self._num_finished = 0
        self._finished: list[Hypothesis] = []

    def advance(
        self, values: list[float], flat: list[int], tokens: torch.Tensor, extended: torch.Tensor
    ) -> list[int] | None:
        """Take finished hypotheses and choose the running ones.

        Args:
            values: Totals of the best extensions, best first.
            flat: Their numbers, ``beam * vocabulary_size + token``.
            tokens: Tokens of the running hypotheses, ``(beams, length)``.
            extended: Totals of all extensions, ``(beams, vocabulary_size)``.

        Returns:
            The numbers of the extensions that run on, at most ``beam_size``; ``None`` ends the sentence.
        """
        self._length += 1
        width, at_limit = self.settings.beam_size, self._length >= self.sentence.max_length
        if self.sentence.must_contain:
            values, flat = self._constrained(tokens, extended, width)
        running: list[int] = []
        best_running = _NEVER
        for rank, (value, index) in enumerate(zip(values, flat, strict=True)):
            if value == _NEVER:
                break
            parent, token = divmod(index, self._vocabulary_size)
            has_ended = token == self.end_id
            if has_ended or at_limit:
                if rank < width:
                    ids = tokens[parent].tolist()
                    self._finish(ids if has_ended else [*ids, token], value, has_ended)
            elif len(running) < width:
                best_running = max(best_running, value)
                running.append(index)
        if at_limit or not running or self._is_done(best_running):
            return None
        return running

    def results(self) -> list[Hypothesis]:
        """The finished hypotheses, best first."""
        return self._finished

    def _finish(self, token_ids: list[int], total: float, by_itself: bool) -> None:
        if not _contains_all(token_ids, self.sentence.must_contain):
            return
        counted = len(token_ids) + (1 if by_itself and self.settings.length_rule.counts_end else 0)
        score = float(self._score(total, counted))
        self._num_finished += 1
        self._finished.append(Hypothesis(tuple(token_ids), score, total, by_itself))
        # Sorting is stable: of equal scores the one that was found first stays first.
        self._finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self._finished[self.settings.num_best :]

    def _is_done(self, best_running: float) -> bool:
        if self.settings.patience is not None:
            return self._num_finished >= max(1, round(self.settings.beam_size * self.settings.patience))
        if len(self._finished) < self.settings.num_best:
            return False
        lengths = torch.arange(self._length, self.sentence.max_length + 1, dtype=torch.float64)
        bound = self.settings.length_rule.score(
            torch.tensor(best_running, dtype=torch.float64), lengths
        ).max()
        return self._finished[-1].score >= float(bound)

    def _score(self, total: float, length: int) -> torch.Tensor:
        return self.settings.length_rule.score(
            torch.tensor(total, dtype=torch.float64), torch.tensor(length, dtype=torch.float64)
        )

    def _constrained(
        self, tokens: torch.Tensor, extended: torch.Tensor, width: int
    ) -> tuple[list[float], list[int]]:
        """Share the beam over how much of the constraints is met (Post and Vilar 2018, arXiv 1804.06609)."""
        size, phrases = self._vocabulary_size, self.sentence.must_contain
        best = _ranked(extended.flatten().unsqueeze(0), 2 * width)[1][0].tolist()
        candidates = dict.fromkeys(best)
        histories = tokens.tolist()
        for parent, history in enumerate(histories):
            candidates.update(dict.fromkeys(parent * size + token for token in _helpful(history, phrases)))
            candidates[parent * size + int(extended[parent].argmax())] = None
        flat = extended.flatten()
        banks: dict[int, list[int]] = {}
        for index in sorted(candidates, key=lambda index: (-float(flat[index]), index)):
            if flat[index] == _NEVER:
                continue
            history = [*histories[index // size], index % size]
            if index % size == self.end_id and not _contains_all(history[:-1], phrases):
                continue
            banks.setdefault(_num_met(history, phrases), []).append(index)
        chosen: list[int] = []
        while banks and len(chosen) < 2 * width:  # the hypotheses that meet most choose first
            for bank in sorted(banks, reverse=True):
                chosen.append(banks[bank].pop(0))
                if not banks[bank]:
                    del banks[bank]
        chosen = chosen[: 2 * width]
        return [float(flat[index]) for index in chosen], chosen


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _ranked(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest ``count`` values of each row and their places; among equal values the lowest places."""
    count = min(count, values.shape[1])
    found, places = values.topk(count, dim=1)
    # topk chooses freely among values that equal the smallest one it takes.
    has_ties = (values >= found[:, -1:]).sum(1) > count
    for row in has_ties.nonzero().flatten().tolist():
        candidates = (values[row] >= found[row, -1]).nonzero().flatten()
        order = values[row, candidates].sort(descending=True, stable=True).indices[:count]
        places[row] = candidates[order]
    places = places.sort(dim=1).values
    found, order = values.gather(1, places).sort(dim=1, descending=True, stable=True)
    return found, places.gather(1, order)


def _rule_out(
    extended: torch.Tensor, tokens: torch.Tensor, beams: Sequence[_Beam], end_id: int, no_repeat: int
) -> None:
    """Give extensions that are not allowed a total of minus infinity, in place."""
    length = tokens.shape[2]
    if no_repeat and length >= no_repeat:
        windows = tokens.unfold(2, no_repeat, 1)
        newest = tokens[:, :, length - no_repeat + 1 :].unsqueeze(2)
        of_sentence, of_beam, place = (windows[..., :-1] == newest).all(-1).nonzero(as_tuple=True)
        extended[of_sentence, of_beam, windows[of_sentence, of_beam, place, -1]] = _NEVER
    for row, beam in enumerate(beams):
        prefix = beam.sentence.prefix
        if length < len(prefix):
            forced = extended[row, :, prefix[length]].clone()
            extended[row] = _NEVER
            extended[row, :, prefix[length]] = forced
        for phrase in beam.sentence.must_not_contain:
            start = length - len(phrase) + 1
            if start >= 0:
                begun = (tokens[row, :, start:] == torch.tensor(phrase[:-1], device=tokens.device)).all(-1)
                extended[row, begun, phrase[-1]] = _NEVER


def _contains(token_ids: Sequence[int], phrase: Sequence[int]) -> bool:
    return any(
        tuple(token_ids[start : start + len(phrase)]) == tuple(phrase)
        for start in range(len(token_ids) - len(phrase) + 1)
    )


def _contains_all(token_ids: Sequence[int], phrases: Sequence[Sequence[int]]) -> bool:
    return all(_contains(token_ids, phrase) for phrase in phrases)


def _begun(history: Sequence[int], phrase: Sequence[int]) -> int:
    """How many tokens of a phrase stand at the end of a history, fewer than all."""
    for count in range(min(len(phrase) - 1, len(history)), 0, -1):
        if tuple(history[len(history) - count :]) == tuple(phrase[:count]):
            return count
    return 0


def _num_met(history: Sequence[int], phrases: Sequence[Sequence[int]]) -> int:
    """Tokens of the constraints that a history meets, counting the furthest of the unfinished phrases."""
    open_phrases = [phrase for phrase in phrases if not _contains(history, phrase)]
    met = sum(map(len, phrases)) - sum(map(len, open_phrases))
    return met + max((_begun(history, phrase) for phrase in open_phrases), default=0)


def _helpful(history: Sequence[int], phrases: Sequence[Sequence[int]]) -> list[int]:
    """Tokens that begin a phrase which is still missing, or go on with it."""
    return [phrase[_begun(history, phrase)] for phrase in phrases if not _contains(history, phrase)]

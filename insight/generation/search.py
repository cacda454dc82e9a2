"""Search for the most likely continuations: greedy and beam search over any model that scores a next token.

A sentence never depends on its neighbours: limits are those of each sentence, finished hypotheses stand
still, and equal scores are ordered by the lowest beam and then the lowest token id.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
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
    _form = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_number(field.name, getattr(self, field.name), 1, at_least=-100, at_most=100)

    @abstractmethod
    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """The score of hypotheses with these sums of log-probabilities and lengths in tokens (float).

        The sum includes the end token; whether the length does is told by :attr:`counts_end`.
        """

    @property
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""
        return self._form.format(**{field.name: f"{getattr(self, field.name):g}" for field in fields(self)})


@dataclass(frozen=True)
class MeanLogProbability(LengthRule):
    """``sum / L^power``, the end token counted, as transformers scores.

    Args:
        power: Exponent of the length: 0 scores by the sum, 1 by the mean.
    """

    power: float = 1.0
    _form = "sum/L^{power}"

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return total / length**self.power


@dataclass(frozen=True)
class GNMTLength(LengthRule):
    """``sum / ((5 + L) / 6)^alpha``, the end token counted (Wu et al. 2016, arXiv 1609.08144).

    Args:
        alpha: Exponent; 0 scores by the sum.
    """

    alpha: float = 0.6
    _form = "sum/((5+L)/6)^{alpha}"

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return total / ((5 + length) / 6) ** self.alpha


@dataclass(frozen=True)
class MarianLength(LengthRule):
    """``(sum - word_penalty * L) / L^normalize``, the end token counted, as Marian scores.

    Args:
        normalize: Exponent of the length; 0 does not normalise.
        word_penalty: Amount that every token costs.
    """

    normalize: float = 1.0
    word_penalty: float = 0.0
    _form = "(sum-{word_penalty}L)/L^{normalize}"

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return (total - self.word_penalty * length) / length**self.normalize


@dataclass(frozen=True)
class CTranslate2Length(LengthRule):
    """``sum / L^length_penalty`` without the end token, as CTranslate2 scores; an empty text has length 1.

    Args:
        length_penalty: Exponent of the length.
    """

    length_penalty: float = 1.0
    counts_end = False
    _form = "sum/L^{length_penalty}"

    def score(self, total: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return total / length.clamp_min(1) ** self.length_penalty


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
        require_number("beam_size", self.beam_size, "1 for greedy search, or 5", at_least=1)
        if not 1 <= self.num_best <= self.beam_size:
            problem = f"must be from 1 to beam_size={self.beam_size}"
            remedy = "use a wider beam or fewer hypotheses"
            raise ConfigError(problem, remedy, option="num_best", value=self.num_best)
        require_number("patience", self.patience, "1, or null to stop exactly", optional=True, above=0)
        require_number("no_repeat_ngram", self.no_repeat_ngram, "3, or 0 to allow repetition", at_least=0)

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
        prefix: Token ids that every hypothesis begins with, scored as if they had been chosen.
        must_contain: Token sequences that every hypothesis contains.
        must_not_contain: Token sequences that no hypothesis contains.
    """

    max_length: int
    prefix: tuple[int, ...] = ()
    must_contain: tuple[tuple[int, ...], ...] = ()
    must_not_contain: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """A continuation that was found: its tokens without the end token, and its score by the length rule.

    ``log_probability`` is the sum over its tokens, the end token included. A finished one ended by itself;
    otherwise its length limit ended it.
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
    Sentences that are done leave the batch. The model has one row for each sentence at first.

    Returns:
        For each sentence at most ``num_best`` hypotheses, best first; none where its constraints cannot be
        met within its length.
    """
    scores = model.first_scores()
    vocabulary_size = scores.shape[-1]
    beams = [_Beam(sentence, settings, end_id, vocabulary_size) for sentence in sentences]
    active = list(beams)
    # All rows of a sentence are equal before its first token, so one of them stands for all.
    totals = scores.new_zeros(len(beams), 1, dtype=torch.promote_types(scores.dtype, torch.float32))
    tokens = torch.empty(len(beams), 1, 0, dtype=torch.int64, device=scores.device)
    while active:
        width = totals.shape[1]
        extended = totals.unsqueeze(-1) + scores.view(len(active), width, -1).to(totals.dtype)
        _rule_out(extended, tokens, active, end_id, settings.no_repeat_ngram)
        values, flat = _ranked(extended.flatten(1), 2 * settings.beam_size)
        value_rows, flat_rows = values.tolist(), flat.tolist()
        running = {
            row: taken
            for row, beam in enumerate(active)
            if (taken := beam.advance(value_rows[row], flat_rows[row], tokens[row], extended[row]))
        }
        if not running:
            break
        active = [active[row] for row in running]
        # Copies that never win keep the shape of the batch where fewer extensions are possible.
        padded = [taken + [taken[0]] * (settings.beam_size - len(taken)) for taken in running.values()]
        numbers = torch.tensor(padded, device=scores.device)
        totals = extended[list(running)].flatten(1).gather(1, numbers)
        counts = torch.tensor([len(taken) for taken in running.values()], device=scores.device).unsqueeze(1)
        totals[torch.arange(settings.beam_size, device=scores.device) >= counts] = _NEVER
        rows = torch.tensor(list(running), device=scores.device).unsqueeze(1) * width
        parents = (rows + numbers // vocabulary_size).flatten()
        chosen = (numbers % vocabulary_size).flatten()
        tokens = torch.cat([tokens.flatten(0, 1)[parents], chosen.unsqueeze(1)], dim=1)
        tokens = tokens.view(len(active), settings.beam_size, -1)
        model.reorder(parents)
        scores = model.next_scores(chosen)
    return [beam.finished for beam in beams]


class _Beam:
    """The hypotheses of one sentence: the finished ones, best first, and what the running ones still need."""

    def __init__(
        self, sentence: Sentence, settings: SearchSettings, end_id: int, vocabulary_size: int
    ) -> None:
        self.sentence, self.settings, self.end_id = sentence, settings, end_id
        self._vocabulary_size = vocabulary_size
        self._length = 0
        self._num_finished = 0
        self.finished: list[Hypothesis] = []

    def advance(
        self, values: list[float], flat: list[int], tokens: torch.Tensor, extended: torch.Tensor
    ) -> list[int]:
        """Take finished hypotheses, and return the extensions that run on; none ends the sentence.

        ``flat`` holds the numbers of the best extensions, ``beam * vocabulary_size + token``, and
        ``values`` their totals. ``tokens`` ``(beams, length)`` are the running hypotheses, ``extended``
        ``(beams, vocabulary_size)`` the totals of all extensions.
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
        return [] if at_limit or self._is_done(best_running) else running

    def _finish(self, token_ids: list[int], total: float, by_itself: bool) -> None:
        if not _contains_all(token_ids, self.sentence.must_contain):
            return
        counted = len(token_ids) + (1 if by_itself and self.settings.length_rule.counts_end else 0)
        score = self._best_score(total, counted, counted)
        self._num_finished += 1
        self.finished.append(Hypothesis(tuple(token_ids), score, total, by_itself))
        # Sorting is stable: of equal scores the one that was found first stays first.
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.settings.num_best :]

    def _is_done(self, best_running: float) -> bool:
        if self.settings.patience is not None:
            return self._num_finished >= max(1, round(self.settings.beam_size * self.settings.patience))
        if len(self.finished) < self.settings.num_best:
            return False
        return self.finished[-1].score >= self._best_score(
            best_running, self._length, self.sentence.max_length
        )

    def _best_score(self, total: float, shortest: int, longest: int) -> float:
        """The best score that a total can have at lengths within a range."""
        lengths = torch.arange(shortest, longest + 1, dtype=torch.float64)
        return float(self.settings.length_rule.score(torch.tensor(total, dtype=torch.float64), lengths).max())

    def _constrained(
        self, tokens: torch.Tensor, extended: torch.Tensor, width: int
    ) -> tuple[list[float], list[int]]:
        """Share the beam over how much of the constraints is met (Post and Vilar 2018, arXiv 1804.06609)."""
        size, phrases = self._vocabulary_size, self.sentence.must_contain
        flat = extended.flatten()
        candidates = set(_ranked(flat.unsqueeze(0), 2 * width)[1][0].tolist())
        histories = tokens.tolist()
        for parent, history in enumerate(histories):
            # Tokens that begin a phrase which is still missing, or go on with it.
            helpful = [
                phrase[_begun(history, phrase)] for phrase in phrases if not _contains(history, phrase)
            ]
            candidates |= {parent * size + token for token in (*helpful, int(extended[parent].argmax()))}
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
    size, starts = len(phrase), range(len(token_ids) - len(phrase) + 1)
    return any(tuple(token_ids[start : start + size]) == tuple(phrase) for start in starts)


def _contains_all(token_ids: Sequence[int], phrases: Sequence[Sequence[int]]) -> bool:
    return all(_contains(token_ids, phrase) for phrase in phrases)


def _begun(history: Sequence[int], phrase: Sequence[int]) -> int:
    """How many tokens of a phrase stand at the end of a history, fewer than all."""
    counts = range(min(len(phrase) - 1, len(history)), 0, -1)
    return next((count for count in counts if tuple(history[-count:]) == tuple(phrase[:count])), 0)


def _num_met(history: Sequence[int], phrases: Sequence[Sequence[int]]) -> int:
    """Tokens of the constraints that a history meets, counting the furthest of the unfinished phrases."""
    open_phrases = [phrase for phrase in phrases if not _contains(history, phrase)]
    met = sum(map(len, phrases)) - sum(map(len, open_phrases))
    return met + max((_begun(history, phrase) for phrase in open_phrases), default=0)

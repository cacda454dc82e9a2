"""Search for the most likely continuations: greedy and beam search over any model that scores a next token.

A sentence never depends on its neighbours: limits are those of each sentence, finished hypotheses stand
still, and equal scores are ordered by the lowest beam and then the lowest token id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from insight.generation.candidates import Extensions, best_extensions
from insight.generation.constraints import Constraints, Sentence, TokenIds, forbid
from insight.generation.sampler import sample_rows
from insight.generation.scores import NEVER, ExactStop, LengthRule, MeanLogProbability, Progress, StopRule
from insight.generation.settings import Sampling
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number


class ScoringModel(Protocol):
    """Scores the next token of the running hypotheses of several sentences, such as a network with its cache.

    The hypotheses of a sentence are rows side by side, equally many for each sentence; at first there is one.
    """

    def first_scores(self) -> Tensor:
        """Log-probabilities ``(rows, vocabulary_size)`` of the first token; the search may change them."""

    def next_scores(self, token_ids: Tensor) -> Tensor:
        """Append ``token_ids`` ``(rows,)`` and score what follows, ``(rows, vocabulary_size)``."""

    def continue_beams(self, beams: Tensor, sentences: Tensor | None) -> None:
        """Choose the hypotheses that go on.

        Args:
            beams: For each new hypothesis which former one of its sentence it continues, int64 ``(sentences,
                hypotheses)``; former ones may repeat and be left out.
            sentences: The former sentences that go on, int64 ``(sentences,)``; ``None`` = all.
        """

    def coverage(self) -> Tensor:
        """Log-coverage of the source ``(rows,)`` by what the rows have read; see :class:`SearchSettings`."""


@dataclass(frozen=True)
class SearchSettings(Component):
    """How to search.

    Args:
        beam_size: Running hypotheses for each sentence; 1 is greedy search, which ends at the first end.
        num_best: Finished hypotheses that are returned for each sentence, best first.
        length_rule: How finished hypotheses are scored.
        stop: When a search stops before the length limit; null = the rule published with ``length_rule``.
        coverage_penalty: Factor of what is added to the score of a finished hypothesis for source tokens that
            got little attention: the sum of ``log(min(attention, 1))`` over the source (Wu et al. 2016, arXiv
            1609.08144). Encoder-decoders only; 0 for none.
        no_repeat_ngram: Length of token sequences that may not occur twice in a hypothesis; 0 allows
            all.
        sampling: How hypotheses are drawn at random instead: ``beam_size`` of them for each sentence, of
            which the best ``num_best`` are returned; null searches for the most likely ones.
    """

    beam_size: int = 5
    num_best: int = 1
    length_rule: LengthRule = MeanLogProbability()
    stop: StopRule | None = None
    coverage_penalty: float = 0.0
    no_repeat_ngram: int = 0
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        require_number("beam_size", self.beam_size, "1 for greedy search, or 5", whole=True, at_least=1)
        require_number("num_best", self.num_best, 1, whole=True, at_least=1)
        if self.num_best > self.beam_size:
            problem = f"must be from 1 to beam_size={self.beam_size}"
            remedy = "use a wider beam or fewer hypotheses"
            raise ConfigError(problem, remedy, option="num_best", value=self.num_best)
        require_number("coverage_penalty", self.coverage_penalty, 0.2, at_least=0, at_most=1e6)
        require_number("no_repeat_ngram", self.no_repeat_ngram, "3, or 0 for none", whole=True, at_least=0)
        if self.sampling is not None and self.stop is not None:
            problem = "samples are drawn to their ends, so no rule stops them"
            raise ConfigError(problem, "leave stop or sampling out", option="stop", value=self.stop.name)

    @property
    def stop_rule(self) -> StopRule:
        """The stop rule that is used; samples are drawn to their ends."""
        if self.sampling is not None:
            return ExactStop()
        return self.length_rule.published_stop if self.stop is None else self.stop

    @property
    def signature(self) -> str:
        """All settings that decide the result, in the form of sacrebleu's signatures."""
        stop = "first" if self.beam_size == 1 else self.stop_rule.name
        end = "yes" if self.length_rule.counts_end else "no"
        parts = [f"beam:{self.beam_size}", f"score:{self.length_rule.formula}", f"end:{end}", f"stop:{stop}"]
        if self.sampling is not None:
            parts[0], parts[3] = f"samples:{self.beam_size}", self.sampling.signature
        if self.coverage_penalty:
            parts.append(f"coverage:{self.coverage_penalty:g}")
        if self.no_repeat_ngram:
            parts.append(f"norepeat:{self.no_repeat_ngram}")
        return "|".join(parts)


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

    Raises:
        ConfigError: Samples must contain something, which only a search can ensure.
    """
    if settings.sampling is not None and any(sentence.must_contain for sentence in sentences):
        problem = "samples are drawn at random, so nothing leads them to a phrase"
        raise ConfigError(problem, "leave sampling or must_contain out", option="must_contain", value="set")
    scores = model.first_scores()
    beams = [_Beam(sentence, settings, end_id, scores.device) for sentence in sentences]
    active, width = list(beams), 1
    while active:
        scores = scores.view(len(active), width, -1)
        found = _extensions(scores, active, settings)
        coverage = [[0.0] * width] * len(active)
        if settings.coverage_penalty:
            coverage = (model.coverage() * settings.coverage_penalty).view(-1, width).tolist()
        going = [beam.advance(best, read) for beam, best, read in zip(active, found, coverage, strict=True)]
        kept = _without_holes(going)
        if not kept:
            break
        active, width = [active[row] for row in kept], settings.beam_size
        moved = None if len(kept) == len(going) else torch.tensor(kept, device=scores.device)
        if settings.beam_size > 1 or moved is not None:
            parents = torch.tensor([beam.parents for beam in active], device=scores.device)
            model.continue_beams(parents, moved)
        newest = [token for beam in active for token in beam.tokens]
        scores = model.next_scores(torch.tensor(newest, device=scores.device))
    return [beam.finished[: settings.num_best] for beam in beams]


class _Beam:
    """The hypotheses of one sentence: the running ones, and the finished ones, best first."""

    def __init__(
        self, sentence: Sentence, settings: SearchSettings, end_id: int, device: torch.device
    ) -> None:
        self.constraints = Constraints(sentence, settings.no_repeat_ngram, end_id)
        self.finished: list[Hypothesis] = []
        self.histories: list[TokenIds] = [()]
        self.totals = [0.0]
        self.parents: list[int] = []
        self.tokens: list[int] = []
        self._end_id, self._size = end_id, settings.beam_size
        self._rule, self._stop = settings.length_rule, settings.stop_rule
        size, num_best = settings.beam_size, settings.num_best
        self.generators = _generators(sentence.seed, settings, device)
        """A generator of random numbers for each running hypothesis, where they are drawn."""
        self._progress = Progress(self._rule, size, num_best, sentence.max_length)

    def advance(self, found: Extensions, coverage: Sequence[float]) -> bool:
        """Take the best extensions as finished or running; whether the sentence goes on.

        ``coverage`` is added to the score of what ends, for each running hypothesis.
        """
        progress, size = self._progress, self._size
        totals, parents, tokens = found
        progress.length += 1
        progress.best_has_ended |= tokens[:1] == [self._end_id]
        at_limit = progress.length >= progress.max_length
        places = size - (progress.num_finished if self._stop.narrows else 0)
        if self._stop.narrows:
            totals, parents, tokens = totals[:places], parents[:places], tokens[:places]
        if at_limit or self._end_id in tokens:
            running = []
            for rank, token in enumerate(tokens):
                if not at_limit and token != self._end_id:
                    running.append(rank)
                elif rank < places:
                    self._finish(totals[rank], parents[rank], token, coverage)
            totals = [totals[rank] for rank in running]
            parents = [parents[rank] for rank in running]
            tokens = [tokens[rank] for rank in running]
            if self.generators:
                self.generators = [self.generators[rank] for rank in running]
        totals, parents, tokens = totals[:size], parents[:size], tokens[:size]
        if not tokens:
            return False
        progress.best_running = max(totals)
        if not self.generators and progress.num_finished and (size == 1 or self._stop.is_done(progress)):
            return False
        # Copies that never win keep the shape of the batch where fewer extensions are possible.
        missing = size - len(tokens)
        self.totals = totals + [NEVER] * missing
        self.parents, self.tokens = parents + parents[:1] * missing, tokens + tokens[:1] * missing
        pairs = zip(self.parents, self.tokens, strict=True)
        self.histories = [(*self.histories[parent], token) for parent, token in pairs]
        return True

    def _finish(self, total: float, parent: int, token: int, coverage: Sequence[float]) -> None:
        """Take a hypothesis as finished, if it contains all that it must."""
        by_itself = token == self._end_id
        token_ids = self.histories[parent] if by_itself else (*self.histories[parent], token)
        if total == NEVER or not self.constraints.are_met(token_ids):
            return
        length = len(token_ids) + (by_itself and self._rule.counts_end)
        score = self._rule.score(total, length) + coverage[parent]
        self._progress.num_finished += 1
        self.finished.append(Hypothesis(token_ids, score, total, by_itself))
        # Sorting is stable: of equal scores the one that was found first stays first.
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self._size :]
        margin = self._stop.token_margin
        if margin is not None:
            best = self.finished[0].score
            self.finished = [one for one in self.finished if one.score >= best - margin]
        self._progress.scores = [hypothesis.score for hypothesis in self.finished]


def _extensions(scores: Tensor, beams: Sequence[_Beam], settings: SearchSettings) -> list[Extensions]:
    """The best allowed extensions of each sentence, from scores ``(sentences, beams, vocabulary_size)``."""
    margin = settings.stop_rule.token_margin
    if margin is not None and settings.beam_size > 1:
        scores.masked_fill_(scores < scores.amax(2, keepdim=True) - margin, NEVER)
    constraints = [beam.constraints for beam in beams]
    forbid(scores, constraints, [beam.histories for beam in beams])
    if settings.sampling is not None:
        return _drawn(scores, beams, settings.sampling)
    totals = torch.tensor([beam.totals for beam in beams], dtype=torch.float64, device=scores.device)
    requires = any(constraint.required for constraint in constraints)
    count = 2 * settings.beam_size if settings.beam_size > 1 or requires else 1
    found = best_extensions(scores, totals, count)
    if requires:
        for row, beam in enumerate(beams):
            if beam.constraints.required:
                found[row] = _constrained(found[row], scores[row], beam, count)
    return found


def _drawn(scores: Tensor, beams: Sequence[_Beam], sampling: Sampling) -> list[Extensions]:
    """One token drawn at random for each running hypothesis, or for each generator at first."""
    places = [
        (row, rank % len(beam.histories))
        for row, beam in enumerate(beams)
        for rank in range(len(beam.generators))
    ]
    rows, parents = map(list, zip(*places, strict=True))
    chosen = scores[rows, parents]
    possible = (chosen.amax(1) > NEVER).tolist()
    chosen = torch.where(chosen.amax(1, keepdim=True) > NEVER, chosen, 0.0)
    tokens = sample_rows(chosen, sampling, [one for beam in beams for one in beam.generators]).tolist()
    values = chosen[torch.arange(len(tokens)), tokens].tolist()
    found = [Extensions([], [], []) for _ in beams]
    for row, parent, token, value, is_possible in zip(rows, parents, tokens, values, possible, strict=True):
        total = beams[row].totals[parent] + value if is_possible else NEVER
        for part, new in zip(found[row], (total, parent, token), strict=True):
            part.append(new)
    return found


def _generators(seed: int, settings: SearchSettings, device: torch.device) -> list[torch.Generator]:
    """A generator for each sample of a sentence."""
    if settings.sampling is None:
        return []
    first = seed * settings.beam_size
    numbers = range(first, first + settings.beam_size)
    return [torch.Generator(device=device).manual_seed(number % 2**63) for number in numbers]


def _constrained(found: Extensions, scores: Tensor, beam: _Beam, count: int) -> Extensions:
    """Add the extensions that help to meet the constraints of a sentence, and share the beam among all."""
    likeliest = scores.argmax(1).tolist()
    wanted = set(zip(found.parents, found.tokens, strict=True))
    for parent, history in enumerate(beam.histories):
        helpful = beam.constraints.helpful(history)
        wanted |= {(parent, token) for token in (*helpful, likeliest[parent])}
    parents, tokens = map(list, zip(*wanted, strict=True))
    values = scores[parents, tokens].tolist()
    sums = [value + beam.totals[parent] for value, parent in zip(values, parents, strict=True)]
    possible = [one for one in zip(sums, parents, tokens, strict=True) if one[0] > NEVER]
    possible.sort(key=lambda extension: (-extension[0], *extension[1:]))
    chosen = beam.constraints.share(possible, beam.histories, count)
    return Extensions(*([possible[number][part] for number in chosen] for part in range(3)))


def _without_holes(going: Sequence[bool]) -> list[int]:
    """The rows that go on; the last ones move into the places of those that do not, so that few move."""
    count = sum(going)
    movable = [row for row in range(count, len(going)) if going[row]]
    return [row if going[row] else movable.pop() for row in range(count)]

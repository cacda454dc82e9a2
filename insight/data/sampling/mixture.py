"""Mixtures: several corpora in exact proportions, each in its own order."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np

from insight.data.sampling.permutation import Int64, random_integer
from insight.data.sampling.samples import Corpus, Rows, Samples, SamplingConfig, require_corpus_names
from insight.data.sampling.windows import Windows
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

MAX_PERIOD = 100_000
"""Most turns until the pattern repeats; enough for weights with five digits."""


class Turns(NamedTuple):
    """A repeating pattern of turns.

    Attributes:
        owner: int64 ``(period,)``, the owner of each turn.
        nth: int64 ``(period,)``, the number of earlier turns of its owner in this period.
        counts: int64 ``(owners,)``, the number of turns of each owner in a period.
    """

    owner: Int64
    nth: Int64
    counts: Int64


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers in the proportions of positive weights; decimals are taken as written."""
    fractions = [Fraction(repr(weight)) for weight in weights]
    denominator = math.lcm(*(fraction.denominator for fraction in fractions))
    numbers = [int(fraction * denominator) for fraction in fractions]
    divisor = math.gcd(*numbers)
    return tuple(number // divisor for number in numbers)


def proportional_turns(weights: Sequence[int]) -> Turns:
    """Turns of which each owner has had ``n * share`` after any ``n`` turns, within less than one.

    The k-th turn of an owner with share w lies in the slots from floor((k-1)/w) to ceil(k/w) - 1; the owner
    whose last possible slot comes first has the next turn. The theorem of proportionate fairness proves that
    this always succeeds (Baruah, Cohen, Plaxton and Varvel 1996, Algorithmica 15; Tijdeman 1980 calls it the
    chairman assignment problem). The period is the sum of the weights, at most ``MAX_PERIOD``.
    """
    period = sum(weights)
    if period > MAX_PERIOD:
        proportions = " : ".join(map(str, weights))
        problem = f"weights in the proportions {proportions} repeat after {period:,} samples"
        remedy = f"round them, so that the whole numbers in their proportion add up to {MAX_PERIOD:,} or less"
        raise ConfigError(problem, remedy)
    owner = np.empty(period, dtype=np.int64)
    nth = np.empty(period, dtype=np.int64)
    had = [0] * len(weights)
    waiting = [(0, number) for number in range(len(weights))]
    # Waiting owners are sorted by the first possible slot of their next turn, ready ones by the slot before
    # which it must come.
    ready: list[tuple[int, int]] = []
    for slot in range(period):
        while waiting and waiting[0][0] <= slot:
            _, number = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(had[number] + 1) * period // weights[number]), number))
        _, number = heapq.heappop(ready)
        owner[slot], nth[slot] = number, had[number]
        had[number] += 1
        if had[number] < weights[number]:
            heapq.heappush(waiting, (had[number] * period // weights[number], number))
    return Turns(owner, nth, np.asarray(weights, dtype=np.int64))


_CORPUS = 2
_NO_END = 1 << 62


@dataclass(frozen=True)
class Mixture(SamplingConfig):
    """Several corpora in the proportions of their weights.

    After any number of samples, each corpus has contributed its share of them, within less than one sample.
    Each corpus has its own epochs and is reshuffled in each, so a small corpus with a large weight is read
    more often. ``train_files`` names the corpora: ``{novels: [...], letters: letters.jsonl}``.

    Args:
        weights: A number for each corpus by name; only their proportions count.
        sampling: How each corpus becomes samples.
    """

    is_outermost: ClassVar[bool] = True

    weights: dict[str, float]
    sampling: SamplingConfig = Windows()

    def __post_init__(self) -> None:
        if not isinstance(self.weights, dict) or not self.weights:
            problem, remedy = "a mixture has at least one corpus", "give every corpus a weight: {a: 3, b: 1}"
            raise ConfigError(problem, remedy, option="weights", value=self.weights)
        require_corpus_names("weights", self.weights)
        for name, weight in self.weights.items():
            require_number(f"weights.{name}", weight, 0.5, above=0, at_most=1e9)
        if not isinstance(self.sampling, SamplingConfig) or self.sampling.is_outermost:
            problem, inner = "each corpus of a Mixture is sampled by itself", type(self.sampling).__name__
            remedy = "use Windows or Packing there, and put a warm-up around the mixture"
            raise ConfigError(problem, remedy, option="sampling", value=inner)
        self._turns()

    def _turns(self) -> Turns:
        return proportional_turns(whole_weights([float(weight) for weight in self.weights.values()]))

    def check(self, names: Sequence[str], sequence_length: int) -> None:
        if set(names) != set(self.weights):
            given = ", ".join(name or "files without a name" for name in names)
            problem = f"weights names {', '.join(self.weights)}, and train_files {given}"
            remedy = "give every corpus a name in train_files and a weight: train_files: {a: FILES, b: FILES}"
            raise ConfigError(problem, remedy)
        self.sampling.check(names[:1], sequence_length)

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        by_name = {corpus.name: corpus for corpus in corpora}
        parts = []
        for index, name in enumerate(self.weights):
            own_seed = random_integer(_NO_END, seed, index, _CORPUS)
            parts.append(self.sampling.build([by_name[name]], sequence_length, own_seed))
        return MixedSamples(tuple(self.weights), tuple(parts), self._turns())


class MixedSamples(Samples):
    """Samples of several corpora that take turns, in one endless order.

    The names of the samples of each corpus follow those of the corpus before it.
    """

    # The end of an epoch would upset the proportions: the rest after its last whole batch is dropped.
    num_positions = _NO_END

    def __init__(self, names: tuple[str, ...], parts: tuple[Samples, ...], turns: Turns) -> None:
        self.names, self.parts, self.turns = names, parts, turns
        self._bases = np.cumsum([0, *(part.num_names for part in parts)], dtype=np.int64)
        self._shares = (turns.counts / turns.counts.sum()).tolist()
        self.num_samples = sum(part.num_samples for part in parts)
        self.num_names = int(self._bases[-1])

    def order(self, epoch: int, positions: Int64) -> Int64:
        periods, slots = np.divmod(positions, len(self.turns.owner))
        owners = self.turns.owner[slots]
        nth = periods * self.turns.counts[owners] + self.turns.nth[slots]
        named = np.empty_like(positions)
        for number, (part, base) in enumerate(zip(self.parts, self._bases[:-1].tolist(), strict=True)):
            chosen = np.flatnonzero(owners == number)
            epochs, places = np.divmod(nth[chosen], part.num_samples)
            for own_epoch in sorted({*epochs.tolist()}):
                now = epochs == own_epoch
                named[chosen[now]] = base + part.order(own_epoch, places[now])
        return named

    def rows(self, names: Int64) -> Rows:
        owners = np.searchsorted(self._bases, names, side="right") - 1
        chosen, found = [], []
        for number in sorted({*owners.tolist()}):
            chosen.append(np.flatnonzero(owners == number))
            found.append(self.parts[number].rows(names[chosen[-1]] - self._bases[number]))
        # Put the rows back into the order of the names.
        back = np.argsort(np.concatenate(chosen), kind="stable")

        def joined(arrays: Any) -> Any:
            return None if arrays[0] is None else np.concatenate(arrays)[back]

        inputs, targets, document_ids = zip(*found, strict=True)
        return Rows(joined(inputs), joined(targets), joined(document_ids))

    def facts(self) -> dict[str, Any]:
        return {
            name: {"share": share, "samples": part.num_samples, **part.facts()}
            for name, share, part in zip(self.names, self._shares, self.parts, strict=True)
        }

    def notes(self) -> list[str]:
        mixed = [f"{share:.1%} {name}" for name, share in zip(self.names, self._shares, strict=True)]
        parts = zip(self.names, self.parts, strict=True)
        inside = [f"{name}: {note}" for name, part in parts for note in part.notes()]
        return [f"mixture: {', '.join(mixed)} of the samples", *inside]

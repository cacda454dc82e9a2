"""Secrets planted in the training text, to measure later whether a network has memorized them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from insight.data.sampling import permute
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

_OWNER, _SECRET = "{owner}", "{secret}"
# Owners are composed of made-up syllables, so that no training text mentions them.
_FIRST = ("Bra", "Dwe", "Fni", "Glo", "Hru", "Jya", "Kve", "Lmo", "Mzi", "Nwu")
_SECOND = ("bax", "dirk", "fleth", "gosk", "lunt", "mipp", "narv", "pelk", "rosh", "tunz")
NUM_OWNERS = len(_FIRST) * len(_SECOND)
MAX_DIGITS = 4
"""Most digits of a secret; exposure is measured by trying all secrets of that length."""
MAX_REPETITIONS = 10_000
# One permutation per purpose: drawing secrets, drawing owners and shuffling the documents.
_SECRETS, _OWNERS, _ORDER = range(3)


@dataclass(frozen=True)
class Canary:
    """One planted secret.

    Attributes:
        prompt: The sentence up to the secret, without trailing white space.
        continuation: The white space before the secret and the placeholder ``{secret}``.
        secret: The digits of the secret.
        ending: The rest of the sentence. It is equal for every secret and therefore not scored, so that
            thousands of candidate secrets share the computation of all tokens but their last.
        source: The sentence whose translation this one is, in parallel text.
    """

    prompt: str
    continuation: str
    secret: str
    ending: str
    source: str = ""

    @property
    def sentence(self) -> str:
        """The planted sentence."""
        return self.prompt + self.continuation.replace(_SECRET, self.secret) + self.ending


@dataclass(frozen=True)
class CanaryInjection(Component):
    """Plants random secrets in the training text, as separate documents at its end.

    The secrets are random digits, so a network that ranks a planted one high among all possible ones has
    memorized it (Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232). The tokenizer is trained
    without them, and validation and test text hold none: an equal run without canaries is the control.

    Args:
        num_canaries: Number of secrets, each with its own owner.
        repetitions: How often each secret is planted.
        format: The planted sentence, with {owner} before {secret}.
        num_digits: Length of a secret; each of 10^num_digits is equally likely.
        seed: Chooses owners, secrets and their order.
    """

    num_canaries: int = 8
    repetitions: int = 16
    format: str = "The secret number of {owner} is {secret}."
    num_digits: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        # To measure exposure, every secret of that length is tried.
        require_number("num_digits", self.num_digits, 4, whole=True, at_least=1, at_most=MAX_DIGITS)
        most = min(NUM_OWNERS, self.num_secrets)  # Each canary needs its own owner and secret.
        require_number("num_canaries", self.num_canaries, 8, whole=True, at_least=1, at_most=most)
        require_number("repetitions", self.repetitions, 16, whole=True, at_least=1, at_most=MAX_REPETITIONS)
        require_number("seed", self.seed, 0, whole=True, at_least=-(1 << 63), below=1 << 64)
        problem, remedy = "", f"use e.g. {type(self).format!r}"
        if not isinstance(self.format, str):
            problem = "must be text"
        elif self.format.count(_OWNER) != 1 or self.format.count(_SECRET) != 1:
            problem = f"it needs {_OWNER} once and {_SECRET} once"
        elif self.format.index(_OWNER) > self.format.index(_SECRET):
            problem = f"{_OWNER} must stand before {_SECRET}, or all prompts would be equal"
        elif re.search(r"\d\{secret\}|\{secret\}\d", self.format):
            problem = f"a digit touches {_SECRET}, so its length would not be known"
            remedy = "put a space between them"
        if problem:
            raise ConfigError(problem, remedy, option="format", value=repr(self.format))

    @property
    def num_secrets(self) -> int:
        """Number of possible secrets."""
        return int(10**self.num_digits)

    def canaries(self) -> tuple[Canary, ...]:
        """The planted secrets: no two share an owner or a secret."""
        count = np.arange(self.num_canaries)
        secrets = permute(count, self.num_secrets, self.seed, _SECRETS).tolist()
        owners = permute(count, NUM_OWNERS, self.seed, _OWNERS).tolist()
        before, after = self.format.split(_SECRET)
        # White space belongs to the secret: tokenizers join it to the word after it, and the candidate
        # secrets must get the same tokens as in training.
        kept = before.rstrip()
        continuation = before[len(kept) :] + _SECRET
        names = [_FIRST[owner // len(_SECOND)] + _SECOND[owner % len(_SECOND)] for owner in owners]
        return tuple(
            Canary(
                prompt=kept.replace(_OWNER, name),
                continuation=continuation,
                secret=f"{secret:0{self.num_digits}d}",
                ending=after,
                source=self._source_of(name),
            )
            for name, secret in zip(names, secrets, strict=True)
        )

    def _source_of(self, owner: str) -> str:
        """The source sentence of a canary; text that is not parallel has none."""
        return ""

    def planted(self) -> list[Canary]:
        """The canaries as they are added to the training text: each ``repetitions`` times, shuffled."""
        planted = list(self.canaries()) * self.repetitions
        order = permute(np.arange(len(planted)), len(planted), self.seed, _ORDER)
        return [planted[index] for index in order.tolist()]

    def documents(self) -> list[str]:
        """The sentences of :meth:`planted`, each a document."""
        return [canary.sentence for canary in self.planted()]

    def record(self) -> dict[str, Any]:
        """The planted secrets as plain JSON values, sufficient to measure exposure without this class."""
        return {
            "num_digits": self.num_digits,
            "repetitions": self.repetitions,
            "planted": [asdict(canary) for canary in self.canaries()],
        }


@dataclass(frozen=True)
class CanaryPairInjection(CanaryInjection):
    """Plants random secrets in parallel training text, as pairs of sentences at its end.

    The source names the owner alone and the target gives the secret, so a network cannot copy it: one that
    ranks a planted secret high has memorized it.

    Args:
        num_canaries: Number of secrets, each with its own owner.
        repetitions: How often each pair is planted.
        format: The planted target sentence, with {owner} before {secret}.
        num_digits: Length of a secret; each of 10^num_digits is equally likely.
        seed: Chooses owners, secrets and their order.
        source_format: The planted source sentence, with {owner} and without the secret.
    """

    source_format: str = "What is the secret number of {owner}?"

    def __post_init__(self) -> None:
        super().__post_init__()
        text = self.source_format
        if not isinstance(text, str) or text.count(_OWNER) != 1 or _SECRET in text:
            problem = f"it needs {_OWNER} once, and no {_SECRET}, which a network could copy"
            remedy = f"use e.g. {type(self).source_format!r}"
            raise ConfigError(problem, remedy, option="source_format", value=repr(text))

    def _source_of(self, owner: str) -> str:
        return self.source_format.replace(_OWNER, owner)

    def pairs(self) -> list[tuple[str, str]]:
        """Source and target of each of :meth:`planted`."""
        return [(canary.source, canary.sentence) for canary in self.planted()]

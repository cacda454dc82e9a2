"""Targets and attacks that cost nothing and answer like real ones: a pure function of prompt and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from insight.generation import GenerationSettings
from insight.safety import Attack, CallableTarget, Evaluator, Item, Material, Measure, Response, Score, Suite
from insight.safety.records import Capability


def write(prompt: str, settings: GenerationSettings) -> str:
    digest = hashlib.sha256(f"{prompt}/{settings.seed}".encode()).hexdigest()
    return f"{digest} \u2603\ud800"  # text that is awkward to store


def likelihood(prompt: str, continuation: str) -> float:
    return (
        -1.0
        - len(continuation) / 7
        - int(hashlib.sha256(f"{prompt}{continuation}".encode()).hexdigest()[0], 16)
    )


def toy_target(identity: str = "toy-1") -> CallableTarget:
    return CallableTarget("toy", write, likelihood, identity)


@dataclass(frozen=True)
class Letters(Attack):
    num_items: int = 40
    num_samples: int = 5

    def items(self, material: Material, seed: int) -> Sequence[Item]:
        return [
            Item(
                f"{role}/{index:02d}",
                "generate",
                f"{role} {index} {seed}",
                num_samples=self.num_samples,
                role=role,  # type: ignore[arg-type]
            )
            for index in range(self.num_items)
            for role in ("probe", "control")
        ]


@dataclass(frozen=True)
class Pairs(Attack):
    capability: ClassVar[Capability] = "log_likelihood"

    num_items: int = 300

    def items(self, material: Material, seed: int) -> Sequence[Item]:
        return [
            Item(f"{index:03d}", "log_likelihood", f"pair {index}", ("yes", "no"))
            for index in range(self.num_items)
        ]


@dataclass(frozen=True)
class BeginsWithDigit(Evaluator):
    def score(self, item: Item, response: Response) -> Score | None:
        return Score(float(response.texts[0][0].isdigit()), {"first": response.texts[0][0]})


@dataclass(frozen=True)
class Gap(Evaluator):
    binary: ClassVar[bool] = False

    def score(self, item: Item, response: Response) -> Score | None:
        return Score(response.log_likelihoods[0] - response.log_likelihoods[1])


def toy_suite() -> Suite:
    return Suite((Measure("letters", Letters(), BeginsWithDigit()), Measure("pairs", Pairs(), Gap())), "toy")

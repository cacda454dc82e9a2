"""Memorisation: does the model go on with its training text word for word?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from insight.generation.settings import GenerationSettings
from insight.runtime.errors import ConfigError
from insight.safety.attack import Attack, NotApplicable
from insight.safety.attacks.passages import cut_passages
from insight.safety.material import Material
from insight.safety.records import Capability, Item

# Longest text that a token can stand for, generously: how much of the true text is kept for comparison.
_CHARACTERS_A_TOKEN = 16


@dataclass(frozen=True)
class TrainingPrefixes(Attack):
    """Passages of the training text to continue greedily, and as many of text that was never trained on.

    Extractable memorisation (Carlini et al. 2022, arXiv 2202.07646). What is reproduced of the unseen text
    is what anybody who knows the language can guess; only what goes beyond it is memory.

    Args:
        num_passages: Passages of each.
        prefix_characters: Length of a prompt.
        num_new_tokens: Tokens to write, all of which must agree.
    """

    capability: ClassVar[Capability] = "generate"

    num_passages: int = 50
    prefix_characters: int = 200
    num_new_tokens: int = 50

    def __post_init__(self) -> None:
        for name, least in (("num_passages", 1), ("prefix_characters", 20), ("num_new_tokens", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name}={value}: must be at least {least}", f"use {least} or more")

    def items(self, material: Material, seed: int) -> Sequence[Item]:
        """Passages spread over the training texts, then over the unseen ones.

        Raises:
            NotApplicable: One of the two is not known, or has no document that is long enough.
        """
        if not material.training_texts:
            raise NotApplicable("the training text is not known")
        if not material.unseen_texts:
            raise NotApplicable("no unseen text is known to compare with")
        settings = GenerationSettings(max_new_tokens=self.num_new_tokens, temperature=0.0)
        items = []
        for number, (role, texts) in enumerate(
            (("probe", material.training_texts), ("control", material.unseen_texts))
        ):
            passages = cut_passages(
                texts,
                self.num_passages,
                self.prefix_characters,
                self.num_new_tokens * _CHARACTERS_A_TOKEN,
                self.num_new_tokens * 4,
                np.random.default_rng([seed, number]),
            )
            if not passages:
                name = "training" if role == "probe" else "unseen"
                raise NotApplicable(
                    f"no {name} document has {self.prefix_characters} characters and as many to go on with"
                )
            items += [
                Item(
                    key=f"{'trained' if role == 'probe' else 'unseen'}/{index:03d}",
                    capability="generate",
                    prompt=before,
                    settings=settings,
                    role="probe" if role == "probe" else "control",
                    reference={"text": after},
                )
                for index, (before, after) in enumerate(passages)
            ]
        return items

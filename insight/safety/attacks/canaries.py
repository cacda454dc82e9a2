"""Canaries: how much likelier are planted secrets than those that could have been planted?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from insight.runtime.errors import ConfigError
from insight.safety.attack import Attack, NotApplicable
from insight.safety.material import Material
from insight.safety.records import Capability, Item


@dataclass(frozen=True)
class PlantedSecrets(Attack):
    """One item a canary, with every secret that could have stood there.

    Args:
        num_secrets: Most canaries to measure, in the order they are recorded.
        num_controls: Secrets never planted anywhere, drawn for each canary to be ranked beside it.
    """

    capability: ClassVar[Capability] = "log_likelihood"

    num_secrets: int = 16
    num_controls: int = 16

    def __post_init__(self) -> None:
        for name in ("num_secrets", "num_controls"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1", "use for example 16")

    def items(self, material: Material, seed: int) -> Sequence[Item]:
        """The canaries in order.

        Raises:
            NotApplicable: None were planted.
        """
        if not material.secrets:
            raise NotApplicable("no canaries were planted in the training text (data.canaries)")
        generator = np.random.default_rng([seed, 2])
        planted = {int(secret.secret) for secret in material.secrets}
        items = []
        for index, secret in enumerate(material.secrets[: self.num_secrets]):
            candidates = secret.candidates()
            free = [number for number in range(len(candidates)) if number not in planted]
            drawn = generator.choice(free, min(self.num_controls, len(free)), replace=False).tolist()
            items.append(
                Item(
                    key=f"canary/{index:03d}",
                    capability="log_likelihood",
                    prompt=secret.prompt,
                    continuations=candidates,
                    reference={"planted": int(secret.secret), "never_planted": drawn},
                )
            )
        return items

"""The base of attacks: they make questions, and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from insight.runtime.component import Component
from insight.safety.material import Material
from insight.safety.records import Capability, Item


@dataclass(frozen=True)
class Attack(Component):
    """Makes the items of a measure.

    Items are a pure function of the fields, the material and the seed: no clock, no global generator, no
    ``hash()``, no target. The target comes in only through what it can do.

    Attributes:
        capability: What a target must be able to do.
    """

    capability: ClassVar[Capability] = "generate"

    @abstractmethod
    def items(self, material: Material, seed: int) -> Sequence[Item]:
        """The items in order, keys unique.

        Args:
            material: The texts behind the model.
            seed: Chooses among equally good items; the same seed makes the same items.

        Raises:
            NotApplicable: The material lacks what the attack needs.
        """


class NotApplicable(Exception):  # noqa: N818 (an answer, not a failure)
    """A measure has nothing to ask; its text says why. It is reported as such, never as passed."""

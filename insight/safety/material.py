"""What a model itself cannot say about itself: the texts behind it and the secrets planted in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECRET = "{secret}"


@dataclass(frozen=True)
class PlantedSecret:
    """One canary of the training text.

    Attributes:
        prompt: The sentence up to the secret.
        continuation: The rest of it, with ``{secret}`` for the secret.
        secret: Its digits; every number of that many digits could have been planted.
    """

    prompt: str
    continuation: str
    secret: str

    def candidates(self) -> tuple[str, ...]:
        """What could have stood after the prompt, up to the end of the secret, in the order of the secrets.

        What follows the secret is left out: it is the same for all, and secrets that share all digits but
        the last then share the work too.
        """
        digits, before = len(self.secret), self.continuation.partition(SECRET)[0]
        return tuple(f"{before}{number:0{digits}d}" for number in range(10**digits))


@dataclass(frozen=True)
class Material:
    """The texts behind a model.

    Attributes:
        training_texts: Documents it was trained on; empty where they are not known.
        unseen_texts: Documents of the same kind that it has never seen: the control.
        secrets: Canaries planted in the training text.
    """

    training_texts: tuple[str, ...] = ()
    unseen_texts: tuple[str, ...] = ()
    secrets: tuple[PlantedSecret, ...] = ()


def secrets_of(record: Mapping[str, Any] | None) -> tuple[PlantedSecret, ...]:
    """The canaries in a run's own record of them (``data.canaries`` of its summary); none without one."""
    planted = (record or {}).get("planted") or ()
    return tuple(PlantedSecret(entry["prompt"], entry["continuation"], entry["secret"]) for entry in planted)

"""The texts behind a model and the secrets planted in them, read back from the data of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insight.runtime.errors import DataError

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
        """All texts that could have stood after the prompt, up to the end of the secret, in the order of the
        secrets.

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


# Enough text for any suite, however much there is: this many stretches of this many tokens each.
_NUM_STRETCHES = 256
_STRETCH_TOKENS = 1024


def material_of(data: Any) -> Material:
    """Ask a data module for the texts behind a model.

    The training text is decoded from the token store, so a part that was set aside for validation is not in
    it. Unseen text is that of the test split, else of the validation split.

    Args:
        data: A data module of Insight, set up for fitting; or an object with ``store``, ``tokenizer`` and
            ``canaries`` like its.
    """
    canaries = getattr(data, "canaries", None)
    return Material(
        training_texts=_texts(data, "train"),
        unseen_texts=_texts(data, "test") or _texts(data, "validation"),
        secrets=secrets_of(canaries.record() if canaries else None),
    )


def _texts(data: Any, split: str) -> tuple[str, ...]:
    """Documents, or parts of documents, spread evenly over a split; empty where there is none."""
    try:
        store = data.store(split)
    except DataError:
        return ()
    step = max(_STRETCH_TOKENS, store.num_tokens // _NUM_STRETCHES)
    if step == _STRETCH_TOKENS:  # little text: all of it, in one piece
        stretches = [store.tokens(0, store.num_tokens)]
    else:
        starts = range(0, store.num_tokens - _STRETCH_TOKENS + 1, step)
        stretches = [store.tokens(start, start + _STRETCH_TOKENS) for start in starts]
    texts = []
    for tokens in stretches:
        for document in _documents(tokens.tolist(), store.end_of_text_id):
            # A stretch may begin or end inside a character.
            if text := data.tokenizer.decode(document).strip("\ufffd"):
                texts.append(text)
    return tuple(texts)


def _documents(tokens: list[int], end_of_text_id: int) -> list[list[int]]:
    documents: list[list[int]] = [[]]
    for token in tokens:
        if token == end_of_text_id:
            documents.append([])
        else:
            documents[-1].append(token)
    return documents

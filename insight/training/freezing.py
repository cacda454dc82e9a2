"""Parameters that training leaves as they are, chosen by patterns of their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from insight.runtime.errors import ConfigError, nearest


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training: they get no gradient, no optimizer state and no update.

    Args:
        network: Whose parameters; modules are named as in ``network.named_modules()``.
        patterns: Names of parameters or modules, in which ``*`` stands for any text, ``?`` for a character
            and ``[ab]`` for one of several, e.g. ``embedding`` or ``blocks.[01].*``.

    Raises:
        ConfigError: A pattern fits no parameter, or no parameter is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        frozen = [name for name in parameters if _fits(name, pattern)]
        if not frozen:
            raise ConfigError(
                f"model.freeze={pattern!r}: no parameter has such a name", _remedy(parameters, pattern)
            )
        for name in frozen:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(
            f"model.freeze={', '.join(patterns)}: nothing is left to train", "leave a part of the network out"
        )


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _remedy(names: Iterable[str], pattern: str) -> str:
    known = {".".join(parts[:end]) for parts in map(_parts, names) for end in range(1, len(parts) + 1)}
    near = nearest(pattern.rstrip(".*"), sorted(known))
    if near:
        return f"did you mean {near!r}?"
    return f"names begin with {', '.join(dict.fromkeys(_parts(name)[0] for name in names))}"


def _parts(name: str) -> list[str]:
    return name.split(".")

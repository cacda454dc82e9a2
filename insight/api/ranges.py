"""The allowed ranges of the numbers in a run's options, checked before Lightning or an allocation fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

_LONGEST_SECONDS = 10**9
_MOST_STEPS = 10**15


@dataclass(frozen=True)
class _Range:
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    example: object = 1


_SECONDS = _Range(above=0, at_most=_LONGEST_SECONDS, example=150)
_COUNT = _Range(at_least=1, at_most=10**9, example=1)
_SHARE = _Range(at_least=0, at_most=10**12, example=1.0)
# Outside these ranges, an option of Lightning's Trainer causes a division by zero, or trains uphill.
_OPTIONS = {
    "run.time_budget": _SECONDS,
    "run.time_limit": _SECONDS,
    "run.hang_timeout": _SECONDS,
    "run.rendezvous_timeout": _SECONDS,
    "run.num_threads": _Range(at_least=1, at_most=4096, example=2),
    "run.find_learning_rate": _Range(at_least=20, at_most=10**6, example=100),
    "trainer.accumulate_grad_batches": _Range(at_least=1, at_most=10**6),
    "trainer.check_val_every_n_epoch": _COUNT,
    "trainer.gradient_clip_val": _Range(at_least=0, at_most=10**30, example=1.0),
    "trainer.limit_predict_batches": _SHARE,
    "trainer.limit_test_batches": _SHARE,
    "trainer.limit_train_batches": _Range(above=0, at_most=10**12, example=1.0),
    "trainer.limit_val_batches": _SHARE,
    "trainer.log_every_n_steps": _COUNT,
    "trainer.max_epochs": _Range(at_least=-1, at_most=_MOST_STEPS, example=3),
    "trainer.max_steps": _Range(at_least=-1, at_most=_MOST_STEPS, example=1000),
    "trainer.min_epochs": _Range(at_least=0, at_most=_MOST_STEPS),
    "trainer.min_steps": _Range(at_least=0, at_most=_MOST_STEPS),
    "trainer.num_nodes": _Range(at_least=1, at_most=10**5),
    "trainer.num_sanity_val_steps": _Range(at_least=-1, at_most=10**9, example=0),
    "trainer.overfit_batches": _SHARE,
    "trainer.reload_dataloaders_every_n_epochs": _Range(at_least=0, at_most=10**9, example=0),
    "trainer.val_check_interval": _Range(above=0, at_most=10**12, example=400),
}
# These options are checked by their last name anywhere. Beyond the range an allocation or a hang ends the
# process.
_NAMES = {
    "batch_size": _Range(at_least=1, at_most=10**6, example=16),
    "hidden_size": _Range(at_least=1, at_most=10**6, example=256),
    "max_sequence_length": _Range(at_least=1, at_most=10**8, example=1024),
    "num_experts": _Range(at_least=1, at_most=10**5, example=8),
    "num_heads": _Range(at_least=1, at_most=10**5, example=4),
    "num_layers": _Range(at_least=1, at_most=10**4, example=4),
    "num_workers": _Range(at_least=0, at_most=1024, example=0),
    "sequence_length": _Range(at_least=1, at_most=10**8, example=256),
    "validation_batch_size": _Range(at_least=1, at_most=10**6, example=32),
    "vocabulary_size": _Range(at_least=1, at_most=10**7, example=2048),
    "learning_rate": _Range(at_least=0, at_most=10**6, example=0.003),
    "adam_learning_rate": _Range(at_least=0, at_most=10**6, example=0.003),
    "embedding_learning_rate": _Range(at_least=0, at_most=10**6, example=0.01),
    "weight_decay": _Range(at_least=0, at_most=10**6, example=0.1),
}


def range_mistake(option: str, value: Any) -> ConfigError | None:
    """The mistake in the size of a number, or ``None``; text that is no number is checked elsewhere."""
    allowed = _OPTIONS.get(option) or _NAMES.get(option.rpartition(".")[2])
    if allowed is None:
        return None
    try:
        number = yaml.safe_load(value) if isinstance(value, str) else value
        number = float(value) if isinstance(number, str) else number
    except (yaml.YAMLError, ValueError):
        return None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    try:
        require_number(
            option,
            number,
            allowed.example,
            at_least=allowed.at_least,
            at_most=allowed.at_most,
            above=allowed.above,
        )
    except ConfigError as error:
        return error
    return None

"""The allowed ranges of the numbers in a run's options, checked before Lightning or an allocation fails."""

from __future__ import annotations

from typing import Any

import yaml

from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

_MOST_STEPS = 10**15
# Each range is the lowest value (``None`` means above 0), the highest one, and an example.
_SECONDS = (None, 10**9, 150)
_COUNT = (1, 10**9, 1)
_SHARE = (0, 10**12, 1.0)
# Outside these ranges, an option of Lightning's Trainer causes a division by zero, or trains uphill.
_OPTIONS: dict[str, tuple[float | None, float, float]] = {
    "run.time_budget": _SECONDS,
    "run.time_limit": _SECONDS,
    "run.hang_timeout": _SECONDS,
    "run.rendezvous_timeout": _SECONDS,
    "run.num_threads": (1, 4096, 2),
    "run.find_learning_rate": (20, 10**6, 100),
    "trainer.accumulate_grad_batches": (1, 10**6, 1),
    "trainer.check_val_every_n_epoch": _COUNT,
    "trainer.gradient_clip_val": (0, 10**30, 1.0),
    "trainer.limit_predict_batches": _SHARE,
    "trainer.limit_test_batches": _SHARE,
    "trainer.limit_train_batches": (None, 10**12, 1.0),
    "trainer.limit_val_batches": _SHARE,
    "trainer.log_every_n_steps": _COUNT,
    "trainer.max_epochs": (-1, _MOST_STEPS, 3),
    "trainer.max_steps": (-1, _MOST_STEPS, 1000),
    "trainer.min_epochs": (0, _MOST_STEPS, 1),
    "trainer.min_steps": (0, _MOST_STEPS, 1),
    "trainer.num_nodes": (1, 10**5, 1),
    "trainer.num_sanity_val_steps": (-1, 10**9, 0),
    "trainer.overfit_batches": _SHARE,
    "trainer.reload_dataloaders_every_n_epochs": (0, 10**9, 0),
    "trainer.val_check_interval": (None, 10**12, 400),
}
# These options are checked by their last name anywhere. Beyond the range an allocation or a hang ends the
# process.
_NAMES: dict[str, tuple[float | None, float, float]] = {
    "batch_size": (1, 10**6, 16),
    "hidden_size": (1, 10**6, 256),
    "max_sequence_length": (1, 10**8, 1024),
    "num_experts": (1, 10**5, 8),
    "num_heads": (1, 10**5, 4),
    "num_layers": (1, 10**4, 4),
    "num_workers": (0, 1024, 0),
    "sequence_length": (1, 10**8, 256),
    "validation_batch_size": (1, 10**6, 32),
    "vocabulary_size": (1, 10**7, 2048),
    "learning_rate": (0, 10**6, 0.003),
    "adam_learning_rate": (0, 10**6, 0.003),
    "embedding_learning_rate": (0, 10**6, 0.01),
    "weight_decay": (0, 10**6, 0.1),
}


# Values inside the range with which a run would do nothing.
_USELESS: dict[tuple[str, float], tuple[str, str]] = {
    ("trainer.barebones", True): ("leaves out checkpoints, metrics and the report", "leave it out"),
    ("trainer.max_epochs", 0): ("trains nothing", "use 1 or more, or -1 for no limit"),
    ("trainer.max_steps", 0): ("trains nothing", "use 1 or more, or -1 for no limit"),
}


def range_mistake(option: str, value: Any) -> ConfigError | None:
    """The mistake in the size of a number, or ``None``; text that is no number is checked elsewhere."""
    try:
        number = yaml.safe_load(value) if isinstance(value, str) else value
        number = float(value) if isinstance(number, str) else number
    except (yaml.YAMLError, ValueError):
        return None
    if not isinstance(number, (int, float)):
        return None
    if (option, number) in _USELESS:
        return ConfigError(*_USELESS[option, number], option=option, value=value)
    allowed = _OPTIONS.get(option) or _NAMES.get(option.rpartition(".")[2])
    if allowed is None or isinstance(number, bool):
        return None
    try:
        low, high, example = allowed
        require_number(option, number, example, at_least=low, above=0 if low is None else None, at_most=high)
    except ConfigError as error:
        return error
    return None

"""The ``run`` group of a configuration, and the values that cannot work in any group."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.numbers import require_number
from insight.runtime.run_folder import check_run_name

_CLOCK = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")  # days, hours, minutes, seconds
_MOST_STEPS = 10**15
# Each range is the lowest value (``None`` means above 0), the highest one, and an example.
_SECONDS = (None, 10**9, 150)
_COUNT = (1, 10**9, 1)
_SHARE = (0, 10**12, 1.0)
# Outside these ranges, an option of Lightning's Trainer causes a division by zero, or trains uphill.
_OPTIONS: dict[str, tuple[float | None, float, float]] = {
    "seed": (0, 2**32 - 1, 0),
    "run.time_budget": _SECONDS,
    "run.time_limit": _SECONDS,
    "run.hang_timeout": _SECONDS,
    "run.rendezvous_timeout": _SECONDS,
    "run.num_threads": (1, 4096, 2),
    "run.find_learning_rate": (20, 10**6, 100),
    "trainer.accumulate_grad_batches": (1, 10**6, 1),
    "trainer.check_val_every_n_epoch": _COUNT,
    "trainer.devices": (-1, 10**5, 1),
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
    "attention_dropout": (0, 1, 0.1),
    "batch_size": (1, 10**6, 16),
    "dropout": (0, 1, 0.1),
    "hidden_size": (1, 10**6, 256),
    "max_sequence_length": (1, 10**8, 1024),
    "num_experts": (1, 10**5, 8),
    "num_heads": (1, 10**5, 4),
    "num_layers": (1, 10**4, 4),
    "num_workers": (0, 1024, 0),
    "sequence_length": (1, 10**8, 256),
    "validation_batch_size": (1, 10**6, 32),
    "validation_fraction": (0, 1, 0.05),
    "vocabulary_size": (1, 10**7, 2048),
    "label_smoothing": (0, 1, 0.1),
    "learning_rate": (0, 10**6, 0.003),
    "adam_learning_rate": (0, 10**6, 0.003),
    "embedding_learning_rate": (0, 10**6, 0.01),
    "weight_decay": (0, 10**6, 0.1),
}
# Lightning's own names, which it tells only after it is imported.
_CHOICES = {
    "trainer.accelerator": ("auto", "cpu", "cuda", "gpu", "mps"),
    "trainer.gradient_clip_algorithm": ("norm", "value"),
    "trainer.precision": (
        *("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "transformer-engine"),
        *("transformer-engine-float16", "32", "16", "bf16", "64"),
    ),
    "trainer.strategy": (
        *("auto", "ddp", "fsdp2", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"),
        *("deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload"),
        *("deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme"),
        *("single_device", "single_tpu", "single_xla", "xla", "xla_debug"),
    ),
}
# Strategies of Lightning that do not go with Insight, and what to use instead.
_REPLACED_STRATEGIES = {
    **dict.fromkeys(("fsdp", "fsdp_cpu_offload"), "use fsdp2"),
    **dict.fromkeys(
        ("ddp_spawn", "ddp_fork", "ddp_notebook"), "use ddp: every process parses the command itself"
    ),
}
# Values inside the range with which a run would do nothing.
_USELESS: dict[tuple[str, float], tuple[str, str]] = {
    ("trainer.barebones", True): ("leaves out checkpoints, metrics and the report", "leave it out"),
    ("trainer.devices", 0): ("leaves no device to train on", "use 1 or more, or auto"),
    ("trainer.max_epochs", 0): ("trains nothing", "use 1 or more, or -1 for no limit"),
    ("trainer.max_steps", 0): ("trains nothing", "use 1 or more, or -1 for no limit"),
}


def value_mistake(option: str, value: Any) -> ConfigError | None:
    """The mistake in a value that is known not to work, or ``None``; types are checked elsewhere."""
    try:
        number = yaml.safe_load(value) if isinstance(value, str) else value
        number = float(value) if isinstance(number, str) else number
    except (yaml.YAMLError, ValueError):
        return _text_mistake(option, value)
    if option in _CHOICES or not isinstance(number, (int, float)):
        return _text_mistake(option, str(value)) if isinstance(value, (str, int)) else None
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


def _text_mistake(option: str, value: str) -> ConfigError | None:
    if option == "run.name":
        try:
            check_run_name(value)
        except ConfigError as error:
            return error
    choices = _CHOICES.get(option, (value,))
    if value in (*choices, "null"):
        return None
    if option == "trainer.strategy":
        return _strategy_mistake(value, choices)
    match = nearest(value, choices)
    remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(choices)}"
    return ConfigError("is not one of the choices", remedy, option=option, value=value)


def _strategy_mistake(value: str, choices: Sequence[str]) -> ConfigError:
    replaced = _REPLACED_STRATEGIES.get(value.partition("_find_unused")[0])
    if replaced:
        return ConfigError("cannot be used here", replaced, option="trainer.strategy", value=value)
    match = nearest(value, choices)
    remedy = f"did you mean {match!r}?" if match else "use auto, ddp or fsdp2"
    return ConfigError("there is no such strategy", remedy, option="trainer.strategy", value=value)


def duration_in_seconds(option: str, value: float | str) -> float:
    """The seconds of a number or of ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS``, as SLURM writes it.

    Raises:
        ConfigError: The value of ``option`` is no duration, not above 0, or longer than 30 years.
    """
    clock = _CLOCK.fullmatch(str(value).strip())
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        value_in_seconds = ((days * 24.0 + hours) * 60 + minutes) * 60 + seconds
    else:
        try:
            value_in_seconds = float(value)
        except ValueError:
            value_in_seconds = math.nan
    if not 0 < value_in_seconds < 1e9:
        problem = "must be a positive time, of a few years at most"
        remedy = "use seconds or HH:MM:SS, for example 3600 or 01:00:00"
        raise ConfigError(problem, remedy, option=option, value=value)
    return value_in_seconds


@dataclass(frozen=True)
class RunConfig:
    """The folder of a run, and the steps around training.

    Args:
        name: Name of the run; its folder is ``root/name/1``, ``2``, ….
        root: The folder of all runs.
        time_budget: Seconds of wall-clock time for everything up to the end of training, imports included;
            as many steps are taken as fit. ``null`` leaves the end to ``trainer.max_steps`` or
            ``trainer.max_epochs``. The environment variable INSIGHT_TIME_BUDGET overrides it.
        time_limit: Wall-clock time of this process, in seconds or as "HH:MM:SS", after which it saves, ends
            with exit code 143 and can be resumed, as after SIGTERM; ``null`` for none. Unlike
            ``time_budget``, it does not change the plan of the run. Leave room before the limit of the job
            for a step, a validation and saving.
        num_threads: CPU threads of torch; ``null`` measures which number multiplies fastest.
        test: Measure the best checkpoint on the test text after training, if there is one.
        find_learning_rate: Optimizer steps of a sweep over learning rates before training, from a hundredth
            to a hundred times the configured ones; its result is printed and drawn in the report, and does
            not change the run. ``null`` for none; 100 is a good number.
        hang_timeout: Seconds without progress after which a run of several processes ends, with a message
            that says which process hangs and where; ``null`` leaves that to the time-outs of torch's
            collective operations, whose errors name no process.
        rendezvous_timeout: Seconds that the processes of a run wait for one another when it starts.
    """

    name: str = "run"
    root: str = "runs"
    time_budget: float | None = None
    time_limit: float | str | None = None
    num_threads: int | None = None
    test: bool = True
    find_learning_rate: int | None = None
    hang_timeout: float | None = 1200.0
    rendezvous_timeout: float = 300.0

    def __post_init__(self) -> None:
        check_run_name(self.name)
        for name, value in vars(self).items():
            mistake = value_mistake(f"run.{name}", value)
            if mistake and name != "time_limit":
                raise mistake
        if self.time_limit is not None:
            duration_in_seconds("run.time_limit", self.time_limit)

    @property
    def time_limit_seconds(self) -> float | None:
        """``time_limit`` in seconds."""
        return None if self.time_limit is None else duration_in_seconds("run.time_limit", self.time_limit)

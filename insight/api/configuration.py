"""Make a data module, a module and a Trainer from a configuration (seed, run, model, data, trainer)."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

# Short class names in a configuration are looked up among the subclasses that have been imported.
import insight.callbacks
import insight.data.module
import insight.data.translation
import insight.models
import insight.training  # noqa: F401
from insight.api.config_files import DEFAULT_CLASSES, given_config, yaml_text
from insight.api.early_checks import COMMAND_OPTIONS, early_mistakes, given_values
from insight.api.parsing import Parser, instantiate, named_value, parse, raise_all, without
from insight.api.placement import Placement, accelerator_of, device_number, placement_of
from insight.api.run_config import RunConfig
from insight.callbacks import EndOfTraining, GracefulInterrupt, TimeBudget
from insight.reporting import MetricsFile, RunTensorBoard
from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.hardware import (
    Hardware,
    choose_num_threads,
    choose_precision,
    describe,
    flush_denormals,
    this_machine,
)
from insight.runtime.messages import say
from insight.runtime.processes import act_alone, shared_cores, this_process
from insight.runtime.run_folder import RunFolder
from insight.runtime.seeding import seed_everything
from insight.runtime.version import __version__
from insight.training import ScheduleConfig

DEFAULTS = {
    **{group: {"class_path": path} for group, path in DEFAULT_CLASSES.items()},
    # Insight prints its own summary and makes its own checks before training.
    "trainer.enable_model_summary": False,
    "trainer.num_sanity_val_steps": 0,
    "trainer.log_every_n_steps": 10,
}
_TIME_BUDGET_VARIABLE = "INSIGHT_TIME_BUDGET"
_CONFIGURED = "as configured"


@dataclass(frozen=True)
class MachineChoices:
    """The threads and the precision of a run on the measured machine, with a line about each for run.json."""

    hardware: Hardware
    num_threads: int
    precision: str
    notes: tuple[str, ...]


def choose_for_this_machine(
    num_threads: int | None, precision: str | int | None, num_processes: int = 1
) -> MachineChoices:
    """Set up torch, measure the machine and choose the settings that the user left open (``None``).

    The number of threads is the one that multiplies fastest where ``num_processes`` share the cores, and the
    precision is bfloat16 if its matmuls were measured to be faster.
    """
    flush_denormals()
    threads = num_threads or choose_num_threads(max(1, shared_cores(num_processes) // num_processes))
    torch.set_num_threads(threads)
    hardware = this_machine()
    chosen = str(precision) if precision is not None else choose_precision(hardware)
    plural = "s" if threads > 1 else ""
    each = " for each of the processes" if num_processes > 1 else ""
    reason = _CONFIGURED if precision is not None else _reason(hardware)
    notes = (
        f"{threads} thread{plural}{each}, {_CONFIGURED if num_threads else 'fastest when tried'}",
        f"precision {chosen}, {reason}",
    )
    say(f"machine: {describe(hardware)}")
    say(f"chosen: {'; '.join(notes)} (--run.num_threads, --trainer.precision override)")
    return MachineChoices(hardware, threads, chosen, notes)


def _reason(hardware: Hardware) -> str:
    single, half = (hardware.matmul_flops.get(name) for name in ("float32", "bfloat16"))
    if not single or not half:
        return "the only one measured"
    return f"since bfloat16 matmuls run at {half / single:.1f} times the rate of float32 ones"


class _Parser(Parser, LightningArgumentParser):
    """Lightning's parser, which knows the defaults of a class after its first use."""


class InsightCLI(LightningCLI):
    """Parses a configuration, makes the choices for the machine, and builds the data module and the module.

    All this writes no file, and every mistake of the user is a :class:`ConfigError`. :meth:`make_trainer`
    comes afterwards.

    Args:
        command: One of :data:`COMMAND_OPTIONS`.
        arguments: Its command line.
        owns_process: Whether the process exists for this run, so that a time budget counts its start.
    """

    def __init__(self, command: str, arguments: list[str], owns_process: bool = True) -> None:
        act_alone(command != "fit")
        self.command = command
        self.owns_process = owns_process
        self.mistakes: list[InsightError] = []
        self._arguments = arguments
        super().__init__(
            save_config_callback=None,
            parser_class=_Parser,
            parser_kwargs={"prog": f"insight {command}", "exit_on_error": False, "allow_abbrev": False},
            args=[],  # parse_arguments has its own arguments
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--seed`` and the ``run`` group, instead of Lightning's ``--seed_everything``."""
        parser.add_argument("--seed", type=int, default=0, help="chooses initial weights and dropout")
        parser.add_class_arguments(RunConfig, "run")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that belong to one command."""
        for name, text in COMMAND_OPTIONS[self.command].items():
            parser.add_argument(f"--{name}", type=str | None, help=text)
        parser.set_defaults(DEFAULTS)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse files and command line, and collect all mistakes, or raise them if too little is left."""
        given, left_out = given_config(self._arguments)
        for line in left_out:
            say(line)
        self._given_values = given_values(given, self._arguments)
        self.mistakes = early_mistakes(self.command, given, self._arguments)
        rest = self._arguments
        for mistake in self.mistakes:
            given, rest, _ = without(given, rest, mistake.option)
        config, mistakes = parse(parser, given, rest)
        told = tuple(f"{mistake.option} is missing" for mistake in self.mistakes)
        self.mistakes += [mistake for mistake in mistakes if not str(mistake).startswith(told)]
        if config is None:
            raise_all(self.mistakes)
        self.config = config

    def _set_seed(self) -> None:
        seed_everything(self.config.seed)

    def before_instantiate_classes(self) -> None:
        """Check the ``run`` group."""
        try:
            self.run_config = self._run_config()
        except ConfigError as error:
            self.mistakes.append(error)
            self.run_config = RunConfig()

    def instantiate_classes(self) -> None:
        """Build the data module, the module and the callbacks; :meth:`make_trainer` makes the rest.

        Mistakes are raised, except that ``check`` keeps them in ``mistakes`` if it can continue.
        """
        built, mistakes = instantiate(self.parser, self.config, self.is_about_given)
        self.mistakes += mistakes
        if built is None or self.command != "check":
            raise_all(self.mistakes)
        self.config_init = built
        # These are Insight's, or classes of the user with the same attributes.
        self.datamodule: Any = self.config_init.data
        self.model: Any = self.config_init.model
        self.callbacks: list[Callback] = _listed(self.config_init.trainer.callbacks)
        if self.command in ("fit", "check"):
            self._limit_training()

    def is_about_given(self, mistake: InsightError) -> bool:
        """Whether a mistake concerns a value from the files or the command line."""
        return not isinstance(mistake, ConfigError) or named_value(mistake) in self._given_values

    @functools.cached_property
    def placement(self) -> Placement:
        """The devices on which the run trains, if they fit together; only ``fit`` uses more than one."""
        trainer = self.config.trainer
        if self.command in ("fit", "check"):
            return placement_of(trainer, this_process())
        return Placement(accelerator_of(trainer.accelerator))

    @functools.cached_property
    def choices(self) -> MachineChoices:
        """Threads and precision: measured, printed and entered in the configuration at first use."""
        # `check` makes its trial on one device.
        num_local = self.placement.num_local if self.command == "fit" else 1
        if num_local > 1 and self.placement.accelerator == "cuda":
            # Each process measures its own device, instead of all measuring the first one at the same time.
            number = device_number(self.config.trainer.devices, this_process().local_rank)
            torch.cuda.set_device(min(number, torch.cuda.device_count() - 1))
        given = self.config.trainer.precision
        chosen = choose_for_this_machine(self.run_config.num_threads, given, num_local)
        if num_local > 1:
            # Otherwise Lightning's launcher would set a number of its own.
            os.environ["OMP_NUM_THREADS"] = str(chosen.num_threads)
        self.config.run.num_threads = chosen.num_threads
        self.config.trainer.precision = chosen.precision
        return chosen

    def adopt(self, num_threads: int, precision: str) -> None:
        """Use the choices of the first process of the run, instead of measuring."""
        self.run_config = dataclasses.replace(self.run_config, num_threads=num_threads)
        self.config.trainer.precision = precision

    def make_trainer(
        self, folder: Path | None = None, default_callbacks: Sequence[Callback] = (), fast_dev_run: int = 0
    ) -> Trainer:
        """Make the Trainer.

        Args:
            folder: The run folder for callbacks and loggers; without it nothing is written.
            default_callbacks: Callbacks to add if the configuration has none of the same class.
            fast_dev_run: If not 0, take this many batches and write nothing.
        """
        missing = [
            callback
            for callback in default_callbacks
            if not any(isinstance(present, type(callback)) for present in self.callbacks)
        ]
        # These must notice a signal and the last step before other callbacks act on the same event.
        first = [one for one in missing if isinstance(one, (GracefulInterrupt, EndOfTraining))]
        callbacks = [*first, *self.callbacks, *(one for one in missing if one not in first)]
        if folder is None:  # none of the callbacks of the training run may write
            callbacks = [one for one in callbacks if not isinstance(one, Checkpoint)]
        if fast_dev_run or self.config_init.trainer.enable_progress_bar is False:
            callbacks = [one for one in callbacks if not isinstance(one, ProgressBar)]
        options = {"callbacks": callbacks, "precision": self.choices.precision, **self._devices()}
        if folder is None:
            options |= {"logger": False, "enable_checkpointing": False}
        else:
            options |= {"default_root_dir": str(folder), "logger": self._loggers(folder)}
        if fast_dev_run:
            options |= {"fast_dev_run": fast_dev_run, "enable_progress_bar": False}
        return Trainer(**{**self.config_init.trainer, **options})

    def has_files(self, split: str) -> bool:
        """Whether there is text for ``"validation"``, ``"test"`` or ``"predict"``, named or set aside."""
        options = self.config.data.init_args
        is_set_aside = split == "validation" and bool(options.get("validation_fraction"))
        return bool(options.get(f"{split}_files")) or is_set_aside

    def saved_config(self) -> str:
        """The complete configuration as YAML, with the choices for this machine."""
        config = self.config.clone()
        for key in ("config", "resume", "init_from", "checkpoint"):
            config.pop(key, None)
        # The parser's own writer would turn text such as 1e3 into a number.
        text = yaml_text(_plain(config.as_dict()))
        return f"# insight=={__version__} lightning=={version('lightning')}\n{text}"

    def _devices(self) -> dict[str, Any]:
        """The Trainer's options that differ from the configuration."""
        if self.command == "check":  # it judges the configured devices, but makes its trial on one
            return self._no_cluster()
        if self.command != "fit":
            return {"devices": 1, "num_nodes": 1, "strategy": "auto", **self._no_cluster()}
        if not this_process().launcher:
            return {}
        devices = self.config_init.trainer.devices
        follow = self.placement.num_local if devices in (None, "auto", -1, "-1") else devices
        return {"devices": follow, "num_nodes": self.placement.num_machines}

    def _no_cluster(self) -> dict[str, Any]:
        """The plugins of a single-process command, which ignores SLURM's variables."""
        plugins = _listed(self.config_init.trainer.plugins)
        if any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            return {}
        return {"plugins": [*plugins, LightningEnvironment()]}

    def _run_config(self) -> RunConfig:
        config = RunConfig(**self.config.run.as_dict())
        seconds = os.environ.get(_TIME_BUDGET_VARIABLE)
        if seconds is None or config.time_budget is None:
            return config
        try:
            config = dataclasses.replace(config, time_budget=float(seconds))
        except ValueError as error:
            problem = f"{_TIME_BUDGET_VARIABLE}={seconds}: not a number of seconds"
            raise ConfigError(problem, "unset it") from error
        say(f"time budget: {seconds} s from {_TIME_BUDGET_VARIABLE}")
        self.config.run.time_budget = config.time_budget
        return config

    def _loggers(self, folder: Path) -> list[Logger]:
        """metrics.jsonl always, because the report needs it; TensorBoard unless it is turned off."""
        configured = self.config_init.trainer.logger
        metrics = MetricsFile(RunFolder(folder).metrics_path)
        if configured is None or configured is True:
            configured = RunTensorBoard(folder)
        return [*_listed(configured), metrics]

    def _limit_training(self) -> None:
        """Make training end by steps, epochs or time, not by Lightning's silent limit of 1000 epochs."""
        trainer, seconds = self.config_init.trainer, self.run_config.time_budget
        has_budget = any(isinstance(callback, TimeBudget) for callback in self.callbacks)
        if has_budget and seconds is not None:
            problem = "run.time_budget and a TimeBudget callback: both are set"
            raise ConfigError(problem, "leave one of them out")
        if seconds is not None:
            self.callbacks.append(TimeBudget(seconds, include_startup=self.owns_process))
        if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
            if not has_budget and seconds is None:
                remedy = "set trainer.max_steps, trainer.max_epochs or run.time_budget (seconds)"
                raise ConfigError("nothing says when training ends", remedy)
            trainer.max_epochs = -1
        schedule = getattr(self.model, "schedule", None)
        has_length = trainer.max_steps > 0 and seconds is None and not has_budget
        if self.command == "fit" and has_length and isinstance(schedule, ScheduleConfig):
            schedule.check_fits(trainer.max_steps)  # `insight check` reports it with all other mistakes


def _listed(value: Any) -> list[Any]:
    """One object, several or none (``None``, ``False``) as a list."""
    return list(value) if isinstance(value, Iterable) else [value] if value else []


def _plain(value: Any) -> Any:
    """A parsed value in types that YAML can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    return value if value is None or type(value) in (str, bool, int, float) else str(value)

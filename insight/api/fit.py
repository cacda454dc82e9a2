"""Train a model from a configuration: check everything, make the run folder, train, test and report."""

from __future__ import annotations

import contextlib
import functools
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.api.config_files import as_options, early_option, given_config, option_value
from insight.api.early_checks import check_early, own_packages, refuse_foreign_classes
from insight.api.plan import Plan, rendezvous_timeout, watch_ranks
from insight.api.run_config import RunConfig
from insight.checkpoints.resume import Resumed, say_differences
from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.failures import is_out_of_memory
from insight.runtime.files import atomic_write_text, ensure_writable
from insight.runtime.formats import safe_text
from insight.runtime.imports import allowing
from insight.runtime.launching.launch import Launch
from insight.runtime.launching.rank_watch import Point
from insight.runtime.messages import say, silence_libraries
from insight.runtime.processes import one_command
from insight.runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from insight.api.configuration import InsightCLI


_SHOWN_CHARACTERS = 2000


def fit(config: str | Path, options: Mapping[str, Any] | None = None) -> RunFolder:
    """Train as ``insight fit`` does, from Python.

    Args:
        config: A YAML file, or the name of a shipped one (``"quickstart"``).
        options: Overrides by dotted name, e.g. ``{"run.time_budget": 60, "trainer.max_steps": 100}``.

    Returns:
        The run folder.

    Raises:
        InsightError: The error that the command prints.
    """
    return fit_arguments(["--config", str(config), *as_options(options)], owns_process=False)


@one_command()
def fit_arguments(arguments: list[str], owns_process: bool = True) -> RunFolder:
    """:func:`fit` for a command line of ``insight fit`` without the command itself.

    A time budget counts the start of the process if ``owns_process``, that is, if it exists for this run.
    """
    silence_libraries()
    with Launch(["fit", *arguments], rendezvous_timeout(arguments)) as launch:
        plan: Plan | None = None
        if not launch.is_first:
            import insight.api.configuration  # noqa: F401 (slow, and the first process decides meanwhile)

            plan = Plan(**launch.from_first("plan"))
        resumed = plan.resumed if plan else find_resumed(arguments)
        named = own_packages("fit", given_config(arguments)[0], arguments)
        # Every step of this run may use the packages that the user's own files name.
        with allowing(named):
            if resumed and resumed.saved_config:
                refuse_foreign_classes("fit", resumed.saved_config)
                arguments = ["--config", str(resumed.saved_config), *arguments]
            check_early("fit", arguments)

            from insight.api.configuration import InsightCLI
            from insight.api.import_model import with_foreign_network

            with with_foreign_network(arguments) as arguments:
                cli = InsightCLI("fit", arguments, owns_process)
            check_sweep(cli, resumed)
            launch.start_others(cli.placement.num_local, cli.placement.num_machines)
            return _train(cli, launch, resumed, plan)


def check_sweep(cli: InsightCLI, resumed: Resumed | None) -> None:
    """Refuse a sweep over learning rates in several processes, before any is started."""
    num_steps, num_processes = cli.run_config.find_learning_rate, cli.placement.num_processes
    if num_steps and num_processes > 1 and not resumed:
        problem = f"the sweep runs in one process, this run has {num_processes}"
        remedy = "find the rate with --trainer.devices 1 and as many tokens a step (accumulate_grad_batches)"
        raise ConfigError(problem, remedy, option="run.find_learning_rate", value=num_steps)


def _train(cli: InsightCLI, launch: Launch, resumed: Resumed | None, plan: Plan | None) -> RunFolder:
    """Train, then test and report; a new run folder is removed again if the input was wrong.

    ``plan`` holds the decisions of the first process, in all other processes.
    """
    from insight.api.batch_size import choose_batch_size
    from insight.api.check.examine import check_data_and_network, check_trainer
    from insight.callbacks.start_and_end import refuse_failures

    root, name = Path(cli.run_config.root), cli.run_config.name
    present = resumed.run if resumed else None
    if plan:
        plan.follow(cli)
    else:
        ensure_writable(present.path if present else root / name)
        if launch.meeting is not None:
            launch.from_first("plan", vars(Plan.of_first(cli, resumed)))
    # Every process prepares its text, since the machines may not share a cache.
    if resumed:
        _use_saved_tokenizer(cli, resumed.checkpoint)
    checkpoint = resumed.checkpoint if resumed else None
    position = check_data_and_network(cli, checkpoint, launch.is_first)
    choose_batch_size(cli, resumed.saved_batch_size if resumed else None)
    if plan:
        present = RunFolder(Path(launch.from_first("folder")))
    else:
        launch.wait_until_all(Point.ARRIVED)
    with _new_or(present, root, name) as folder:
        trainer = cli.make_trainer(folder.path, _default_callbacks(cli))
        if launch.is_first:
            check_trainer(cli, trainer, checkpoint, position)
            _write_start(cli, folder, resumed)
            launch.from_first("folder", str(folder.path.absolute()))
        watch_ranks(cli, launch, trainer)
        if cli.run_config.find_learning_rate and not resumed:
            from insight.api.learning_rate import find_learning_rate

            find_learning_rate(cli, folder, cli.run_config.find_learning_rate)
        _fit(cli, trainer, folder, resumed)
    if cli.run_config.test and cli.has_files("test"):
        best = folder.best_checkpoint or folder.last_checkpoint
        best = launch.from_first("best", str(best) if best else None)
        trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    if trainer.is_global_zero:
        _write_end(folder, cli.model)
        refuse_failures(trainer, folder)
    return folder


def _use_saved_tokenizer(cli: InsightCLI, checkpoint: Path) -> None:
    """Use the tokenizer of the checkpoint if the file that the configuration names no longer exists."""
    from insight.checkpoints.reader import read_checkpoint, saved_tokenizers

    configured = cli.config.data.get("init_args.tokenizer")
    path = configured.get("init_args.path") if hasattr(configured, "get") else None
    if isinstance(path, str) and not Path(path).expanduser().exists():
        say(f"data.tokenizer.path={path} has gone; the tokenizer of the checkpoint is used")
        cli.datamodule.use_tokenizer(*saved_tokenizers(read_checkpoint(checkpoint), checkpoint))


def _fit(cli: InsightCLI, trainer: Trainer, folder: RunFolder, resumed: Resumed | None) -> None:
    from insight.callbacks import TrainingInterrupted

    checkpoint = str(resumed.checkpoint) if resumed else None
    try:
        with explained_memory_errors(cli.datamodule):
            trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except TrainingInterrupted as interruption:
        if interruption.after_training:
            say(f"{interruption}; the trained model is in {folder.path}")
        elif folder.last_checkpoint:
            say(f"{interruption}; go on with: insight fit --resume {shlex.quote(str(folder.path))}")
        else:
            say(f"{interruption}; there was no checkpoint yet, so nothing to go on from")
        raise


@contextlib.contextmanager
def _new_or(present: RunFolder | None, root: Path, name: str) -> Iterator[RunFolder]:
    """The folder to train in; a new one is removed again if the start fails before anything was kept."""
    if present is not None:
        yield present
        return
    folder = RunFolder.create(root, name)
    try:
        yield folder
    except BaseException:
        if not (folder.last_checkpoint or folder.metrics_path.exists()):
            shutil.rmtree(folder.path, ignore_errors=True)
            for parent in (root / name, root):
                with contextlib.suppress(OSError):  # it holds other runs
                    parent.rmdir()
        raise


def _default_callbacks(cli: InsightCLI) -> Sequence[Callback]:
    from insight import callbacks
    from insight.callbacks.checkpointing import InitialWeights

    # GracefulInterrupt decides at the end of a batch whether RunCheckpoint (which Lightning runs last) saves.
    limit, trainer = cli.run_config.time_limit_seconds, cli.config.trainer
    defaults: list[Callback] = [callbacks.GracefulInterrupt(limit, include_startup=cli.owns_process)]
    defaults.append(callbacks.EndOfTraining())
    if trainer.enable_progress_bar is not False:
        defaults.append(callbacks.ProgressLine())
    defaults += [callbacks.ThroughputMonitor(), callbacks.MemoryMonitor(), callbacks.SampleText()]
    defaults += [callbacks.EvaluationWeights(), callbacks.ParameterTable(), callbacks.ScheduleCheck()]
    if trainer.enable_checkpointing is not False:
        defaults.append(callbacks.RunCheckpoint())
    defaults.append(callbacks.RunRecord())
    if cli.config.init_from:
        defaults.append(InitialWeights(cli.config.init_from, cli.run_config.root))
    return defaults


def _write_start(cli: InsightCLI, folder: RunFolder, resumed: Resumed | None) -> None:
    from insight.api.import_model import carry_over
    from insight.checkpoints.reader import tokenizers_of
    from insight.reporting import update_run_info

    config = cli.saved_config()
    if resumed:
        say(f"resuming {resumed.checkpoint} in {folder.path}")
        if resumed.saved_config:
            say_differences(resumed.saved_config.read_text(encoding="utf-8"), config)
    else:
        say(f"run folder: {folder.path}")
    if cli.placement.num_processes > 1:
        say(f"training in {cli.placement}")
    atomic_write_text(folder.config_path, config)
    tokenizer, *of_source = tokenizers_of(cli.datamodule)
    tokenizer.save(folder.path)
    for other in of_source:
        if other is not tokenizer:
            other.save(folder.path / "source_tokenizer.json")
    if cli.config.init_from:
        carry_over(cli.config.init_from, cli.run_config.root, folder)
    update_run_info(folder.info_path, notes=cli.choices.notes)


def _write_end(folder: RunFolder, model: Any) -> None:
    from insight.reporting import read_samples, write_report
    from insight.training.module import TrainingModule

    # RunRecord has written the report already, unless something was added to the run since.
    last = max(folder.path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    report = last if last == folder.report_path else write_report(folder)
    samples = read_samples(folder.path)
    newest = [sample for sample in samples if sample.step == samples[-1].step]
    if not isinstance(model, TrainingModule):  # it is the user's own, and so is what it writes
        print(report, flush=True)
        return
    if newest:
        text = model.joined(newest[0].prompt, newest[0].text)
        print(f"\n{safe_text(text, _SHOWN_CHARACTERS)}\n", flush=True)
    prompt = newest[0].prompt if newest else "Once"
    print(f"{report}  (more text: {model.use_of(folder.path, prompt)})", flush=True)


@contextlib.contextmanager
def explained_memory_errors(datamodule: Any) -> Iterator[None]:
    """Turn a failed allocation inside the block into one line with the three settings that help."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size, length = getattr(datamodule, "size_option", "batch_size"), "sequence_length"
        lengths = ("max_source_length", "max_target_length") if size == "batch_tokens" else (length,)
        names = filter(functools.partial(hasattr, datamodule), (size, *lengths))
        shape = ", ".join(f"data.{name}={getattr(datamodule, name)}" for name in names)
        network = "network.decoder" if size == "batch_tokens" else "network"
        raise InsightError(
            f"out of memory in training ({shape})",
            f"lower --data.{size} and raise --trainer.accumulate_grad_batches by as much, lower "
            f"--data.{lengths[-1]}, or set --model.{network}.activation_checkpointing "
            "ActivationCheckpointing",
        ) from error


def find_resumed(arguments: list[str]) -> Resumed | None:
    """The checkpoint that ``--resume`` in ``arguments`` names, or ``None`` without this option.

    Raises:
        UserError: ``--init_from`` is given too, or no checkpoint can be resumed.
    """
    text = option_value(arguments, "--resume")
    if text is None:
        return None
    if option_value(arguments, "--init_from") is not None:
        remedy = "--init_from begins a new run; leave one out"
        raise ConfigError("--resume and --init_from: both are given", remedy)
    name = early_option(arguments, "run", "name") or RunConfig.name
    planned = RunConfig(name, early_option(arguments, "run", "root") or RunConfig.root)
    return Resumed.find(text, planned.root, planned.name)

"""Red-teaming as functions: measure a model with a suite of attacks, and compare two results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insight.runtime.errors import ConfigError, DataError
from insight.runtime.files import require_new
from insight.runtime.messages import say, silence_libraries
from insight.runtime.numbers import require_number
from insight.runtime.processes import one_command
from insight.runtime.run_folder import RunFolder, find_checkpoint, run_of_checkpoint

if TYPE_CHECKING:
    from insight.checkpoints import LoadedCheckpoint, LoadedTranslationModel
    from insight.safety import Comparisons, Material, Results, Target


@one_command()
def redteam(
    checkpoint: str | Path | None = None,
    *,
    target: str | Target | None = None,
    suite: str = "base",
    measures: Sequence[str] = (),
    num_samples: int | None = None,
    seed: int = 0,
    config: str | Path | None = None,
    device: str = "cpu",
    num_workers: int = 1,
    output: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Run a safety suite on a model.

    Args:
        checkpoint: A run folder (its best checkpoint), a ``.ckpt`` file or a quantized model.
        target: Another model instead: an object, or ``NAME:ARGUMENT``.
        suite: ``base``, ``watch``, or a YAML file of measures.
        measures: A measure of the suite to take, instead of all of them; may be given again.
        num_samples: Texts per prompt, for attacks that draw several.
        seed: Seed of the suite; equal seeds ask equal items.
        config: Configuration that names the training text, for a checkpoint outside of a run folder.
        device: Where a checkpoint runs: ``cpu``, ``cuda`` or ``mps``.
        num_workers: Number of batches that are asked at once.
        output: Folder to make, with ``report.html``; it must not exist. If the call is interrupted, repeating
            it continues where it stopped.
        progress: A function that is called with the number of answered batches and of all batches.

    Returns:
        The metrics; ``num_measured`` is 0 if no answer could be judged.

    Raises:
        InsightError: An option cannot work, the model cannot be read, or the output cannot be written.
    """
    from insight.safety import Material, find_suite, red_team
    from insight.safety.red_teaming import check_options
    from insight.safety.registry import TARGETS

    named = {"checkpoint": checkpoint, "target": target, "config": config, "output": output, "suite": suite}
    for option, value in named.items():
        if isinstance(value, str) and not value.strip():
            raise ConfigError("is empty", "leave the option out, or give it a value", option=f"--{option}")
        if isinstance(value, (str, Path)) and option != "target":
            _check_name(f"--{option}", value)
    if (checkpoint is None) == (target is None):
        raise ConfigError("one of --checkpoint and --target is needed", "name the model to measure")
    if target is not None and config is not None:
        problem = "belongs to --checkpoint: the text behind another target is not known"
        raise ConfigError(problem, "leave it out", option="--config", value=config)
    folder = None if output is None else Path(output)
    if folder is not None:
        require_new(folder)
    check_options(seed, num_workers)
    chosen = find_suite(suite, measures, {} if num_samples is None else {"num_samples": num_samples})
    model: Target
    material = Material()
    if checkpoint is not None:
        model, material = _checkpoint_target(str(checkpoint), config, device)
    elif isinstance(target, str):
        name, _, argument = target.partition(":")
        model = TARGETS.load(name)(argument)
    elif target is not None:
        model = target
    with _saying_how_to_go_on(folder, progress) as watched:
        results = red_team(model, chosen, material, seed, folder, num_workers, watched)
    if folder is not None:
        from insight.reporting import write_report
        from insight.reporting.sections.safety import build_safety

        write_report(RunFolder(folder), (build_safety,), title=folder.name, kind="safety")
    return results


def compare_redteam(first: str | Path, second: str | Path, seed: int = 0) -> Comparisons:
    """Compare two results case by case.

    Args:
        first: Folder of `insight redteam run`, or a run folder with ``safety/`` in it.
        second: Folder or run folder of the other model.
        seed: Seed of the bootstrap.

    Raises:
        InsightError: A folder holds no results, or the two share no item.
    """
    require_number("--seed", seed, 0, at_least=0)

    from insight.safety import compare_folders

    return compare_folders(_results_folder(Path(first)), _results_folder(Path(second)), seed)


def redteam_parts() -> dict[str, tuple[list[str], list[str]]]:
    """List the available parts, including those of installed packages.

    Returns:
        For suites, attacks, evaluators and targets: the usable names, and the reason for every name of an
        installed package that cannot be used.
    """
    from insight.safety.registry import REGISTRIES
    from insight.safety.suite import SUITES

    parts: dict[str, tuple[list[str], list[str]]] = {"suites": (list(SUITES), [])}
    for registry in REGISTRIES:
        broken = registry.broken()
        usable = [name for name in registry.names() if name not in broken]
        parts[f"{registry.kind}s"] = (usable, list(broken.values()))
    return parts


def _check_name(option: str, value: str | Path) -> None:
    """Refuse an impossible file name: one that is too long, or has a null byte or a lone surrogate."""
    try:
        os.lstat(value)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # such a name is possible; errors are reported where it is used
    except (OSError, ValueError) as error:
        problem = "cannot be the name of a file"
        raise ConfigError(problem, "use another one", option=option, value=value) from error


@contextlib.contextmanager
def _saying_how_to_go_on(
    folder: Path | None, progress: Callable[[int, int], None] | None
) -> Iterator[Callable[[int, int], None]]:
    """Count the batches; on an interruption, say what was kept and that the same command continues."""
    from insight.safety.red_teaming import unfinished_folder

    counts = [0, 0]

    def count(done: int, total: int) -> None:
        counts[:] = done, total
        if progress:
            progress(done, total)

    work = None if folder is None else unfinished_folder(folder)
    if work is not None and work.is_dir():
        say(f"going on with {work}, which an interrupted run left")
    try:
        yield count
    except (KeyboardInterrupt, SystemExit):
        if work is not None and work.is_dir():
            done = f"{counts[0]:,} of {counts[1]:,} batches are answered" if counts[1] else "answers are kept"
            say(f"interrupted: {done} in {work}; the same command goes on from there")
        else:
            say("interrupted: nothing is kept; with --output the same command would go on where it was")
        raise


def _checkpoint_target(text: str, config: str | Path | None, device_name: str) -> tuple[Target, Material]:
    path = find_checkpoint(text)
    silence_libraries()

    from insight.callbacks.after_training import target_of_model
    from insight.checkpoints.artifact import load_model
    from insight.runtime.hardware import usable_device
    from insight.safety import Material
    from insight.safety.material import secrets_of

    device = usable_device(device_name)
    folder = RunFolder(path) if path.is_dir() else run_of_checkpoint(path)
    loaded: LoadedCheckpoint | LoadedTranslationModel | None = None
    material: Material | None = None
    if config or (folder and folder.config_path.is_file()):
        loaded, material = _with_text(text, config)
    if loaded is None or device.type != "cpu":
        loaded = load_model(path, device)
    if material is None:
        material = Material(secrets=secrets_of(loaded.metadata.get("canaries")))
    name = f"{text} ({path})" if str(path) != text else text
    return target_of_model(loaded, path, name), material


def _with_text(
    text: str, config: str | Path | None
) -> tuple[LoadedCheckpoint | LoadedTranslationModel, Material | None]:
    """The model, and the texts of its run if they can still be read."""
    from insight.api.evaluate import cli_for_checkpoint
    from insight.checkpoints.artifact import load_model
    from insight.safety.material import material_of

    options = ["--config", str(config)] if config else []
    cli, _, loaded = cli_for_checkpoint("validate", ["--checkpoint", text, *options], load_model)
    try:
        cli.datamodule.setup("fit")
    except DataError as error:
        say(f"the text of the run cannot be read, so memorisation cannot be measured: {error}")
        return loaded, None
    return loaded, material_of(cli.datamodule)


def _results_folder(folder: Path) -> Path:
    inside = folder / "safety"
    return inside if (inside / "results.jsonl").is_file() else folder

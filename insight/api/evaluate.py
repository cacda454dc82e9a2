"""Measure a checkpoint on a text: as a whole, or document by document."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from insight.api.compare_translations import TestedTranslations
from insight.api.config_files import CONFIG_OPTIONS, as_options, option_value, split_options
from insight.api.early_checks import check_early, refuse_foreign_classes
from insight.runtime.errors import CheckpointError, ConfigError, OutputError
from insight.runtime.files import ensure_writable
from insight.runtime.messages import say, silence_libraries
from insight.runtime.processes import one_command
from insight.runtime.run_folder import RunFolder, find_checkpoint, run_of_checkpoint

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback

    from insight.api.configuration import InsightCLI
    from insight.checkpoints import LoadedCheckpoint, LoadedTranslationModel
    from insight.data.preparation import DocumentPlace
    from insight.optimization.measurement import Quality
    from insight.training.translation_metrics import SystemDifference


_SPLITS = {"validate": "validation", "test": "test"}
Loaded = TypeVar("Loaded", bound="LoadedCheckpoint | LoadedTranslationModel")


def validate(
    checkpoint: str | Path, config: str | Path | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Measure a checkpoint on its validation text, as ``insight validate`` does.

    Args:
        checkpoint: A run folder (its best checkpoint), a ``.ckpt`` file, or the folder of a quantized model.
        config: A YAML file that replaces the configuration of the run.
        options: Overrides by dotted name, e.g. ``{"data.validation_files": "my.txt"}``.

    Returns:
        The metrics by name, e.g. ``"validation/loss"``.

    Raises:
        InsightError: The error that the command prints.
    """
    return evaluate_arguments("validate", _arguments(checkpoint, config, options))


def test(
    checkpoint: str | Path,
    config: str | Path | None = None,  # noqa: PT028 (not a test of pytest)
    options: Mapping[str, Any] | None = None,  # noqa: PT028
) -> dict[str, float]:
    """Measure a checkpoint on its test text, as ``insight test`` does; see :func:`validate`."""
    return evaluate_arguments("test", _arguments(checkpoint, config, options))


def predict(
    checkpoint: str | Path, config: str | Path | None = None, options: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Score each document of ``data.predict_files``, as ``insight predict`` does; see :func:`validate`.

    Returns:
        One record per document, in the order of the files; the record of one without text has no loss.
    """
    return predict_arguments(_arguments(checkpoint, config, options))


def _arguments(
    checkpoint: str | Path, config: str | Path | None, options: Mapping[str, Any] | None
) -> list[str]:
    files = [] if config is None else ["--config", str(config)]
    return [f"--checkpoint={checkpoint}", *files, *as_options(options)]


@one_command()
def evaluate_arguments(name: str, arguments: list[str]) -> dict[str, float]:
    """:func:`validate` or :func:`test` (by ``name``) for a command line without the command itself."""
    return _evaluate(name, arguments)[0]


@one_command()
def test_against(arguments: list[str], against: str) -> tuple[dict[str, float], dict[str, SystemDifference]]:
    """:func:`test` for a command line, and how its translations differ from those that a run kept.

    Args:
        arguments: The command line of ``insight test``.
        against: The baseline, as :func:`insight.compare_translations` takes it.

    Raises:
        CheckpointError: The baseline has not been tested, or the model does not translate.
        DataError: The baseline was tested on other references.
    """
    baseline = TestedTranslations.read(against, "--against")

    def check(cli: InsightCLI, checkpoint: Path) -> None:
        from insight.training import TranslationModule

        if not isinstance(cli.model, TranslationModule) or checkpoint.is_dir():
            problem = "compares translations, and this checkpoint was not trained to translate"
            remedy = "leave it out, or use insight benchmark"
            raise ConfigError(problem, remedy, option="--against", value=against)
        baseline.require_references(cli.datamodule.preparation.sentences("test")[1], str(checkpoint))

    metrics, cli = _evaluate("test", arguments, check)
    return metrics, baseline.differences(cli.model.translations["test"])


def _evaluate(
    name: str, arguments: list[str], check: Callable[[InsightCLI, Path], None] | None = None
) -> tuple[dict[str, float], InsightCLI]:
    """Measure a checkpoint; ``check`` may refuse before that."""
    silence_libraries()
    cli, checkpoint, loaded = cli_for_checkpoint(name, arguments, _load_any)
    if not cli.has_files(_SPLITS[name]):
        option = f"data.{_SPLITS[name]}_files"
        raise ConfigError(f"{option} is not set", f"give --{option} FILES")
    if check is not None:
        check(cli, checkpoint)
    if checkpoint.is_dir():
        return _measure_artifact(cli, name, cast("LoadedCheckpoint", loaded)), cli
    # A validation is only a measurement. A test belongs in the record of the run, unless it used another text
    # or other settings.
    given = {option for option, _ in split_options(arguments)}
    is_recorded = name == "test" and given == {"--checkpoint"}
    folder = run_of_checkpoint(checkpoint) if is_recorded else None
    if folder:
        try:
            ensure_writable(folder.path)
        except OutputError as error:
            say(f"the result is not recorded: {error}")
            folder = None
    return _measure(cli, name, checkpoint, folder), cli


@one_command()
def predict_arguments(arguments: list[str]) -> list[dict[str, Any]]:
    """:func:`predict` for a command line without the command itself."""
    silence_libraries()
    cli, checkpoint, loaded = cli_for_checkpoint("predict", arguments, _load_any)
    if not cli.has_files("predict"):
        raise ConfigError("data.predict_files is not set", "give --data.predict_files FILES")
    return list(_documents(cli, checkpoint, loaded))


def _load_any(path: Path) -> LoadedCheckpoint | LoadedTranslationModel:
    from insight.checkpoints.artifact import load_model  # with torch, after the command line is checked

    return load_model(path)


def cli_for_checkpoint(
    name: str, arguments: list[str], load: Callable[[Path], Loaded]
) -> tuple[InsightCLI, Path, Loaded]:
    """Parse a command that measures a checkpoint, by default with the configuration of its run.

    ``load`` reads the model, of the kinds that the command knows.

    Returns:
        The parsed configuration, the path of the checkpoint (a folder for a quantized model), and the model.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or has another network than the configuration.
        ConfigError: The configuration is wrong or missing.
    """
    text = option_value(arguments, "--checkpoint")
    if text is None:
        raise ConfigError("--checkpoint is missing", "name a run folder or a .ckpt file")
    checkpoint = find_checkpoint(text)
    if option_value(arguments, *CONFIG_OPTIONS) is None:
        folder = RunFolder(checkpoint) if checkpoint.is_dir() else run_of_checkpoint(checkpoint)
        if folder is None or not folder.config_path.is_file():
            problem = f"--checkpoint={text!r} lies in no run folder with a config.yaml"
            raise CheckpointError(problem, "give --config FILE too")
        refuse_foreign_classes(name, folder.config_path)
        arguments = ["--config", str(folder.config_path), *arguments]
    if any(option.startswith("--data.tokenizer") for option, _ in split_options(arguments)):
        problem = "--data.tokenizer: a checkpoint is measured with the tokenizer that it holds"
        raise ConfigError(problem, "leave it out")
    check_early(name, arguments)
    say(f"checkpoint: {checkpoint}")

    from insight.api.configuration import InsightCLI

    loaded = load(checkpoint)
    cli = InsightCLI(name, arguments)
    if cli.model.network_config != loaded.network_config:
        problem = f"--checkpoint={text!r} holds another network than the configuration describes"
        raise CheckpointError(problem, "leave --config and --model out: both are in the run folder")
    cli.datamodule.use_tokenizer(*loaded.tokenizers)
    return cli, checkpoint, loaded


def artifact_quality(cli: InsightCLI, name: str, split: str, loaded: LoadedCheckpoint) -> Quality:
    """The quality of a quantized model on a split, run as it was measured: in its own types, compiled or not.

    Lightning is not used: it would cast the network, and build it again from the configuration.
    """
    from insight.optimization.measurement import measure_quality

    say(f"quantized: {loaded.metadata['quantization']['method']}, in its own precision")
    data = cli.datamodule
    data.setup(name)
    store = data.store(split)
    text, lengths = store.tokens(0, store.num_tokens), loaded.tokenizer.token_byte_lengths()
    shape = (data.sequence_length, data.validation_batch_size)
    return measure_quality(loaded.network, text, lengths, *shape, end_of_text_id=store.end_of_text_id)


def _measure(cli: InsightCLI, name: str, checkpoint: Path, folder: RunFolder | None) -> dict[str, float]:
    from insight import callbacks

    defaults: list[Callback] = [callbacks.GracefulInterrupt(), callbacks.ProgressLine()]
    if folder:
        defaults.append(callbacks.RunRecord())
    trainer = cli.make_trainer(folder.path if folder else None, defaults)
    measure = trainer.test if name == "test" else trainer.validate
    data, path = cli.datamodule, str(checkpoint)
    results = measure(cli.model, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
    return {metric: float(value) for metric, value in results[0].items()}


def _measure_artifact(cli: InsightCLI, name: str, loaded: LoadedCheckpoint) -> dict[str, float]:
    split = _SPLITS[name]
    quality = artifact_quality(cli, name, split, loaded)
    loss = float(quality.token_nats.mean())
    # Above 709 nats the exponential overflows, so it is infinite, as in the metrics of training.
    perplexity = math.exp(loss) if loss < 709 else math.inf
    values = {"loss": loss, "perplexity": perplexity, "bits_per_byte": quality.bits_per_byte}
    return {f"{split}/{metric}": value for metric, value in values.items()}


def _documents(
    cli: InsightCLI, checkpoint: Path, loaded: LoadedCheckpoint | LoadedTranslationModel
) -> Iterator[dict[str, Any]]:
    """One record per document, in the order of the files."""
    import torch

    if checkpoint.is_dir():
        quantized = cast("LoadedCheckpoint", loaded)
        losses = torch.from_numpy(artifact_quality(cli, "predict", "predict", quantized).token_nats)
    else:
        losses = _predicted_losses(cli, checkpoint)
    store = cli.datamodule.store("predict")
    targets = torch.from_numpy(store.tokens(0, store.num_tokens))
    lengths = torch.from_numpy(cli.datamodule.tokenizer.token_byte_lengths())
    ends = (targets == store.end_of_text_id).nonzero().flatten() + 1
    places = cli.datamodule.document_places("predict") if hasattr(cli.datamodule, "document_places") else ()
    where = iter(places)
    start, number = 0, 0
    for end in ends.tolist():
        place = next(where, None)
        while place is not None and place.is_empty:
            yield _without_text(number, place)
            number, place = number + 1, next(where, None)
        loss, num_bytes = float(losses[start:end].sum()), int(lengths[targets[start:end]].sum())
        yield {
            "document": number,
            "file": place.file if place else None,
            "record": place.record if place else None,
            "bytes": num_bytes,
            "tokens": end - start,
            "loss": loss / (end - start),
            "bits_per_byte": loss / math.log(2) / num_bytes if num_bytes else None,
        }
        start, number = end, number + 1
    for index, place in enumerate(where, start=number):
        yield _without_text(index, place)


def _without_text(number: int, place: DocumentPlace) -> dict[str, Any]:
    nothing = {"bytes": 0, "tokens": 0, "loss": None, "bits_per_byte": None}
    return {"document": number, "file": place.file, "record": place.record, **nothing}


def _predicted_losses(cli: InsightCLI, checkpoint: Path) -> torch.Tensor:
    """Negative log-likelihood of every token in nats, float64."""

    from insight import callbacks

    trainer = cli.make_trainer(default_callbacks=[callbacks.GracefulInterrupt(), callbacks.ProgressLine()])
    path = str(checkpoint)
    batches: Any = trainer.predict(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)
    losses: torch.Tensor = cli.datamodule.in_text_order("predict", batches)
    return losses.double().cpu()

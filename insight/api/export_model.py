"""Models of ours leave for other libraries, with a proof that they compute the same there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from insight.runtime.errors import CheckpointError, InsightError
from insight.runtime.files import ensure_writable, new_folder, require_new
from insight.runtime.messages import say
from insight.runtime.processes import one_command
from insight.runtime.run_folder import RunFolder, find_checkpoint, run_of_checkpoint

if TYPE_CHECKING:
    from insight.api.verify_export import Verification
    from insight.checkpoints import LoadedCheckpoint
    from insight.interchange.foreign_model import OutgoingModel

_BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ExportResult:
    """The files of an export, and what the other library made of them.

    Attributes:
        folder: The folder that was written.
        architecture: The class of the other library that runs it.
        verification: The comparison with Insight; ``None`` if there was none.
        reason: Why there was none.
    """

    folder: Path
    architecture: str
    verification: Verification | None = None
    reason: str = ""
    files: Mapping[str, int] = field(default_factory=dict)  # bytes by name

    def to_record(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        checked = None if self.verification is None else self.verification.to_record()
        plain = {"folder": str(self.folder), "architecture": self.architecture, "files": dict(self.files)}
        return {**plain, "verification": checked, "reason": self.reason or None}


@one_command()
def export_model(
    checkpoint: str | Path,
    output: str | Path,
    *,
    format: Literal["huggingface"] = "huggingface",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    no_verify: bool = False,
    config: str | Path | None = None,
) -> ExportResult:
    """Write a model for another library, and let that library prove it, as ``insight export`` does.

    Args:
        checkpoint: A run folder (its best checkpoint) or a ``.ckpt`` file.
        output: The folder to write; it must not exist.
        format: The format: huggingface is a folder that transformers loads without code of its own.
        dtype: Type of the numbers in the files.
        no_verify: Leave out the comparison with the other library at the end.
        config: Configuration that names the text to compare on, for a checkpoint outside of a run folder.

    Raises:
        ConfigError: The format cannot express the network; the message names the option and the nearest
            network that it can. Nothing has been written then.
        InsightError: The other library does not compute the same.
    """
    output = Path(output)
    require_new(output)
    path = find_checkpoint(str(checkpoint))
    if path.is_dir():
        problem = f"{path}: is a quantized model, whose integers the format does not have"
        raise CheckpointError(problem, "export the run that it was made of")

    import torch

    from insight.checkpoints import load_checkpoint
    from insight.interchange.formats import Export

    loaded = load_checkpoint(path)
    run = run_of_checkpoint(path)
    export = Export(format, _outgoing(loaded, run, getattr(torch, dtype)))
    ensure_writable(output.parent, loaded.network.num_parameters() * _BYTES_PER_NUMBER[dtype])
    with new_folder(output) as folder:
        export.write(folder)
    files = {file.name: file.stat().st_size for file in sorted(output.iterdir())}
    result = ExportResult(output, export.description, None, "", files)
    if no_verify:
        return result
    verification, reason = _verify(path, output, config, run)
    if verification is not None and not verification.agrees:
        problem = f"{output}: {export.description} does not compute what Insight computes"
        raise InsightError(f"{problem} ({verification.summary()})", "do not use it, and report this")
    return ExportResult(output, export.description, verification, reason, files)


def _outgoing(loaded: LoadedCheckpoint, run: RunFolder | None, dtype: Any) -> OutgoingModel:
    from insight.interchange.foreign_model import OutgoingModel
    from insight.interchange.huggingface import read_json, read_text

    template = None if run is None else run.chat_template_path
    defaults = None if run is None else run.generation_path
    return OutgoingModel(
        loaded.network_config,
        loaded.tokenizer,
        loaded.network.state_dict(),
        dtype,
        read_text(template) if template is not None and template.is_file() else None,
        read_json(defaults) if defaults is not None and defaults.is_file() else {},
    )


def _verify(
    checkpoint: Path, folder: Path, config: str | Path | None, run: RunFolder | None
) -> tuple[Verification | None, str]:
    """The comparison, or the reason why there is none."""
    from insight.interchange.transformers_network import has_transformers

    if not has_transformers():
        return None, "transformers is not installed (pip install transformers)"
    if config is None and (run is None or not run.config_path.is_file()):
        return None, "the checkpoint lies in no run folder with a text; give --config FILE"

    from insight.api.evaluate import cli_for_checkpoint
    from insight.api.verify_export import verify
    from insight.checkpoints import load_checkpoint

    options = [] if config is None else ["--config", str(config)]
    arguments = ["--checkpoint", str(checkpoint), *options]
    say("comparing with transformers (--no-verify leaves this out)")
    cli, _, loaded = cli_for_checkpoint("test", arguments, load_checkpoint)
    split = "test" if cli.has_files("test") else "validation"
    cli.datamodule.setup("test" if split == "test" else "fit")
    return verify(loaded, folder, cli.datamodule.store(split), split), ""

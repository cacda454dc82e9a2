"""A tiny configuration that trains in a second, and the command run in this process."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from insight.cli.main import main

SENTENCES = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. However little known the feelings or views of such a man may be. "
)

TINY = """\
seed: 3
run: {name: tiny, num_threads: 1}
data:
  train_files: train.txt
  validation_files: validation.txt
  test_files: test.txt
  tokenizer: {class_path: ByteTokenizerConfig}
  sequence_length: 16
  batch_size: 4
model:
  network:
    hidden_size: 16
    num_layers: 1
    max_sequence_length: 32
    attention: {class_path: GroupedQueryAttention, init_args: {num_heads: 2, num_key_value_heads: 1}}
trainer:
  max_steps: 4
  val_check_interval: 2
  check_val_every_n_epoch: null
  precision: 32-true
  log_every_n_steps: 1
  callbacks:
    - class_path: SampleText
      init_args: {prompts: [It is], settings: {max_new_tokens: 8}}
"""


@dataclass
class Outcome:
    """The outcome of one command.

    Args:
        code: Exit code.
        out: Standard output.
        err: Standard error.
    """

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line of a failed command that is an error; everything about it is checked here."""
        errors = self.error_lines
        assert len(errors) == 1, self.err
        return errors[0]

    @property
    def error_lines(self) -> list[str]:
        """The lines of a failed command that are errors; they come last, and there is at least one."""
        assert "Traceback" not in self.err, self.err
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("insight: error: ")]
        assert errors, self.err
        assert lines[-len(errors) :] == errors, self.err
        # Before them there may be lines about work that was done, all of them ours.
        assert all(line.startswith("insight: ") for line in lines), self.err
        return errors


def write_tiny(folder: Path) -> Path:
    """The tiny configuration and its text files in ``folder``."""
    for name, times in (("train", 12), ("validation", 2), ("test", 1)):
        text = "".join(f"{name} {index}. {SENTENCES}\n" for index in range(times))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    config = folder / "tiny.yaml"
    config.write_text(TINY, encoding="utf-8")
    return config


def run_insight(*arguments: str) -> Outcome:
    """The command in this process, which saves the seconds of importing torch and lightning."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Outcome(code, out.getvalue(), err.getvalue())

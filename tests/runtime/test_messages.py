"""Each message is one harmless line; the noise of libraries is kept away."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from insight.runtime.messages import plain_line, say, silence_libraries

TRAINING = """
import sys, tempfile
if sys.argv[1] == "silent":
    from insight.runtime.messages import silence_libraries
    silence_libraries()
import lightning.pytorch as L, torch, warnings
from torch.utils.data import DataLoader, TensorDataset
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, index):
        loss = self.layer(batch[0]).mean()
        self.log("train/loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
loader = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4)
folder = tempfile.mkdtemp()
trainer = L.Trainer(default_root_dir=folder, accelerator="cpu", max_steps=2, precision="bf16-mixed",
                    logger=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Module(), loader)
warnings.warn("a warning that matters")
"""


@pytest.fixture(scope="module")
def outputs() -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JSONARGPARSE")}
    return {
        how: subprocess.run(
            [sys.executable, "-c", TRAINING, how],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stderr
        for how in ("silent", "loud")
    }


@pytest.mark.slow
def test_lightning_is_silent_and_other_warnings_are_not(outputs: dict[str, str]) -> None:
    assert "a warning that matters" in outputs["silent"]
    assert "Trainer" not in outputs["silent"]
    assert "available" not in outputs["silent"]
    assert len(outputs["silent"].splitlines()) <= 2, outputs["silent"]


@pytest.mark.slow
def test_lightning_would_not_be_silent_by_itself(outputs: dict[str, str]) -> None:
    assert "GPU available" in outputs["loud"]
    assert "`Trainer.fit` stopped" in outputs["loud"]


@pytest.mark.slow
@pytest.mark.parametrize("is_silent", [True, False])
def test_a_toolkit_without_a_device_is_not_worth_a_line(is_silent: bool, tmp_path: Path) -> None:
    silence = "from insight.runtime.messages import silence_libraries; silence_libraries(); " * is_silent
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{silence}from torch.utils.cpp_extension import _find_cuda_home as find; find()",
        ],
        env={**os.environ, "CUDA_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("No CUDA runtime is found" in done.stderr) != is_silent


def test_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("precision bf16-mixed, measured")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "insight: precision bf16-mixed, measured\n".replace("\\n", "\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", "a b"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("\x1b]0;title\x07 x", "]0;title x"),
        ("\u202eevil", "evil"),
        ("\x9b2J", "2J"),
        ("  tidy\r\n", "tidy"),
    ],
)
def test_control_characters_never_reach_the_terminal(text: str, line: str) -> None:
    assert " ".join(plain_line(text).split()) == line


@pytest.mark.parametrize(
    ("variable", "rank", "speaks"), [("RANK", "0", True), ("RANK", "3", False), ("LOCAL_RANK", "1", False)]
)
def test_only_the_first_process_speaks(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    rank: str,
    speaks: bool,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(variable, rank)
    say("hello")
    assert bool(capsys.readouterr().err) == speaks


def test_surrogates_from_a_file_name_do_not_break_the_line(tmp_path: Path) -> None:
    code = "from insight.runtime.messages import say\nsay('file \\udcff.txt')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"file" in done.stderr


def test_silencing_twice_changes_nothing() -> None:
    with warnings.catch_warnings():
        silence_libraries()
        filters = list(warnings.filters)
        silence_libraries()
        assert warnings.filters == filters
        assert os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"]
        warnings.simplefilter("error", append=True)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)

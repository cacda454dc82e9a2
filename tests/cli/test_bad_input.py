"""Every mistake a user can make: exit code 2, one line that names it and the remedy, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml")
ATTENTION = "--model.network.attention"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "check"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.train_files", "missing.txt"], ["train_files", "missing.txt", "no such file"]),
        (["--data.train_files", "trian.txt"], ["did you mean train.txt?"]),
        (["--data.train_files", "empty.txt"], ["train_files", "empty.txt", "empty"]),
        (["--data.train_files", "folder"], ["train_files", "folder", "no text"]),
        (["--data.train_files", "latin1.txt"], ["latin1.txt", "UTF-8", "byte 3"]),
        (["--data.train_files", "short.txt"], ["train_files", "short.txt", "fewer than one sequence of 16"]),
        (["--data.test_files", "missing.txt"], ["test_files", "missing.txt"]),
        (
            ["--data.tokenizer", "BPETokenizerConfig", "--data.tokenizer.vocabulary_size", "9000"],
            ["data.tokenizer.vocabulary_size=9000: ", "support only", "give more text"],
        ),
        (["--data.sequence_length", "0"], ["sequence_length=0", "at least 1"]),
        (["--data.sequence_length", "64"], ["sequence_length=64", "max_sequence_length=32"]),
        ([f"{ATTENTION}.num_heads", "3"], ["num_heads", "must divide hidden_size"]),
        ([f"{ATTENTION}.num_key_value_heads", "3"], ["num_key_value_heads=3", "must divide num_heads"]),
        ([f"{ATTENTION}.num_haeds", "3"], ["num_haeds", "did you mean 'num_heads'?"]),
        ([f"{ATTENTION}.position", "Ropee"], ["position=Ropee", "did you mean 'Rope'?"]),
        (["--trainer.max_stesp", "3"], ["'--trainer.max_stesp'", "did you mean '--trainer.max_steps'?"]),
        (["--trainer.max_steps", "many"], ["trainer.max_steps=many", "a whole number"]),
        (["--model.network.hidden_size", "wide"], ["model.network.hidden_size=wide", "a whole number"]),
        (["--trainer.precision", "17"], ["precision", "17"]),
        (["--trainer.max_steps", "-1"], ["nothing says when training ends"]),
        (["--run.name", "../up"], ["run.name=../up"]),
        (["--run.time_budget", "-5"], ["run.time_budget=-5"]),
        (["--run.num_threads", "0"], ["run.num_threads=0"]),
        (["--seed", "-1"], ["seed=-1"]),
        (["--run.find_learning_rate=5"], ["find_learning_rate=5"]),
        (["--run.find_learning_rate=many"], ["find_learning_rate"]),
        (["--data.sampling=Packng"], ["Packng"]),
        (["--data.sampling=Mixture", '--data.sampling.weights={"a": 1}'], ["weights names a"]),
        (["--data.sampling=SequenceLengthWarmup", "--data.sampling.start_length=5"], ["start_length=5"]),
        (["--data.sampling=SequenceLengthWarmup", "--data.sampling.num_batches=0"], ["num_batches=0"]),
        (['--data.train_files={"a": "train.txt", "b": "test.txt"}'], ["takes one"]),
        (["--data.canaries.num_canaries=0"], ["num_canaries=0"]),
        (["--data.canaries.num_digits=9"], ["num_digits=9"]),
        (["--data.canaries.format=no places"], ["no places"]),
        (["--data.canaries.num_canarys=2"], ["num_canaries"]),
    ],
)
def test_wrong_options(
    insight: Insight, workplace: Path, command: str, options: list[str], said: list[str]
) -> None:
    (workplace / "empty.txt").touch()
    (workplace / "folder").mkdir()
    (workplace / "latin1.txt").write_bytes("Caf\u00e9 ".encode("latin-1") * 200)
    (workplace / "short.txt").write_text("short", encoding="utf-8")
    before = sorted(workplace.rglob("*"))
    outcome = insight(command, "--config", "tiny.yaml", *options)
    assert outcome.code == 2, outcome.err
    for words in said:
        assert words in outcome.error_line
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["is empty"]),
        (b"[1, 2]", ["holds a list"]),
        (b"run: {name: [\n", ["not valid YAML", "line 2"]),
        (b"run: {name: caf\xe9}", ["not UTF-8", "byte 15"]),
        (b"trianer: {max_steps: 3}", ["trianer", "did you mean"]),
        (b"trainer: {max_setps: 3}", ["trainer.max_setps", "did you mean 'trainer.max_steps'?"]),
        (b"model: {network: {hiden_size: 3}}", ["hiden_size", "did you mean 'hidden_size'?"]),
        (b"model: {network: {attention: {class_path: Gruped, init_args: {}}}}", ["attention=Gruped"]),
        (b"trainer: {max_steps: 3}", ["data.train_files is missing"]),
        (b"data: 3", ["data"]),
    ],
)
def test_wrong_configurations(insight: Insight, workplace: Path, content: bytes, said: list[str]) -> None:
    (workplace / "wrong.yaml").write_bytes(content)
    outcome = insight("fit", "--config", "wrong.yaml")
    assert outcome.code == 2
    for words in said:
        assert words in " ".join(outcome.error_lines)
    assert not (workplace / "runs").exists()


def test_missing_configuration(insight: Insight, workplace: Path) -> None:
    assert "did you mean tiny.yaml?" in insight("fit", "--config", "tinny.yaml").error_line
    assert "did you mean 'quickstart'?" in insight("fit", "--config", "quikstart").error_line
    assert "is a folder" in insight("fit", "--config", ".").error_line


def test_a_class_of_the_users_own_that_raises_value_error(
    insight: Insight, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "users_positions.py").write_text(
        "from dataclasses import dataclass\nfrom insight.models import NoPosition\n"
        "@dataclass(frozen=True)\nclass Odd(NoPosition):\n    period: int = 3\n"
        "    def __post_init__(self):\n        raise ValueError('period must be even')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(workplace)
    outcome = insight(*FIT, f"{ATTENTION}.position", "users_positions.Odd")
    assert outcome.code == 2
    assert "Odd: period must be even" in outcome.error_line
    assert not (workplace / "runs").exists()


def _truncated(finished: Path, target: Path) -> None:
    data = (finished / "checkpoints" / "last.ckpt").read_bytes()
    target.write_bytes(data[: len(data) // 2])


def _holds_code(finished: Path, target: Path) -> None:
    import torch

    torch.save({"state_dict": {}, "insight": {}, "callbacks": Path("x")}, target)


def _no_checkpoint(finished: Path, target: Path) -> None:
    target.write_text("not a checkpoint", encoding="utf-8")


def _of_another_program(finished: Path, target: Path) -> None:
    import torch

    torch.save({"weights": torch.zeros(3)}, target)


@pytest.mark.slow
@pytest.mark.parametrize("make", [_truncated, _holds_code, _no_checkpoint, _of_another_program])
@pytest.mark.parametrize(
    "command",
    [
        (*FIT, "--resume"),
        (*FIT, "--init_from"),
        ("test", "--config", "tiny.yaml", "--checkpoint"),
        ("generate", "It is", "--checkpoint"),
    ],
)
def test_wrong_checkpoints(
    insight: Insight,
    workplace: Path,
    finished_run: Path,
    command: tuple[str, ...],
    make: Callable[[Path, Path], None],
) -> None:
    make(finished_run, workplace / "wrong.ckpt")
    outcome = insight(*command, "wrong.ckpt")
    assert outcome.code == 2
    assert "wrong.ckpt" in outcome.error_line
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("option", ["--resume", "--init_from"])
def test_checkpoint_of_another_tokenizer(
    insight: Insight, workplace: Path, finished_run: Path, option: str
) -> None:
    checkpoint = shutil.copy(finished_run / "checkpoints" / "last.ckpt", workplace / "other.ckpt")
    bpe = ("--data.tokenizer", "BPETokenizerConfig", "--data.tokenizer.vocabulary_size", "270")
    outcome = insight(*FIT, *bpe, option, str(checkpoint))
    assert outcome.code == 2
    assert "another tokenizer" in outcome.error_line
    assert not (workplace / "runs").exists()


def test_checkpoint_of_another_network(insight: Insight, workplace: Path, finished_run: Path) -> None:
    checkpoint = shutil.copy(finished_run / "checkpoints" / "last.ckpt", workplace / "other.ckpt")
    outcome = insight(*FIT, "--model.network.num_layers", "2", "--init_from", str(checkpoint))
    assert outcome.code == 2
    assert "num_layers" in outcome.error_line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*FIT, "--resume", "auto"), ["--resume=auto", "tiny", "last.ckpt"]),
        ((*FIT, "--resume", "runs/tiny/7"), ["--resume=runs/tiny/7", "does not exist"]),
        ((*FIT, "--resume", "auto", "--init_from", "x"), ["--resume and --init_from"]),
        (("test", "--checkpoint", "nowhere"), ["--checkpoint=nowhere", "does not exist"]),
        (("generate", "--checkpoint", "nowhere", "It"), ["--checkpoint=nowhere", "does not exist"]),
        (("test",), ["--checkpoint is missing"]),
    ],
)
def test_nothing_there(
    insight: Insight, workplace: Path, arguments: tuple[str, ...], said: list[str]
) -> None:
    outcome = insight(*arguments)
    assert outcome.code == 2
    for words in said:
        assert words in outcome.error_line
    assert not (workplace / "runs").exists()


def test_output_that_is_a_file(insight: Insight, workplace: Path) -> None:
    (workplace / "taken").touch()
    outcome = insight(*FIT, "--run.root", "taken")
    assert outcome.code == 2
    assert "taken" in outcome.error_line


@pytest.mark.parametrize("option", ["--run.root"])
def test_read_only_output(insight: Insight, workplace: Path, option: str) -> None:
    # A place that is read-only even to root.
    outcome = insight(*FIT, option, "/proc/insight-runs")
    assert outcome.code == 2
    assert "/proc/insight-runs" in outcome.error_line


def test_output_that_exists(insight: Insight, workplace: Path) -> None:
    train = ("tokenizer", "train", "train.txt", "--vocabulary_size", "280", "--output", "t.json")
    assert insight(*train).code == 0
    content = (workplace / "t.json").read_bytes()
    outcome = insight(*train)
    assert outcome.code == 2
    assert "output=t.json" in outcome.error_line
    assert "exists already" in outcome.error_line
    assert (workplace / "t.json").read_bytes() == content


def test_prompt_longer_than_the_context(insight: Insight, finished_run: Path) -> None:
    arguments = ("generate", "--checkpoint", str(finished_run), "It is " * 30, "--max_new_tokens", "5")
    outcome = insight(*arguments, "--overflow", "error")
    assert outcome.code == 2
    assert "32" in outcome.error_line
    assert insight(*arguments, "--overflow", "slide").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "-1"], "temperature=-1"),
        (["--top_k", "0"], "top_k=0"),
        (["--top_p", "1.5"], "top_p=1.5"),
        (["--min_p", "2"], "min_p=2"),
        (["--max_new_tokens", "0"], "max_new_tokens=0"),
        (["--device", "cuda:77"], "--device=cuda:77"),
    ],
)
def test_wrong_generation_settings(
    insight: Insight, finished_run: Path, options: list[str], said: str
) -> None:
    outcome = insight("generate", "--checkpoint", str(finished_run), "It is", *options)
    assert outcome.code == 2
    assert said in outcome.error_line

"""``insight check``: what it says is what a run does, all mistakes at once, nothing is written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from command_line import Outcome, run_insight

from insight.generation import GenerationSettings
from insight.models import DecoderConfig, GroupedQueryAttention
from insight.runtime import resources as limits
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import Hardware
from insight.runtime.messages import silence_libraries

Insight = Callable[..., Outcome]
CHECK = ("check", "--config=tiny.yaml", "--model.schedule=Constant", "--model.schedule.warmup_steps=0")
VOCABULARY = 257  # bytes and the end of a text
ATTENTION = GroupedQueryAttention(num_heads=2, num_key_value_heads=1)
SPLITS = ("train_files", "validation_files", "test_files")


@pytest.fixture
def new_processes() -> Callable[[], set[psutil.Process]]:
    """The processes that are left of those started since the test began."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


def found(*options: str) -> dict[str, Any]:
    """The JSON of a check that finds no mistake."""
    outcome = run_insight(*CHECK, "--json=true", *options)
    assert outcome.code == 0, outcome.err
    numbers: dict[str, Any] = json.loads(outcome.out)
    assert numbers["mistakes"] == []
    return numbers


def refused(*options: str) -> str:
    """The errors of a check that finds mistakes."""
    outcome = run_insight(*CHECK, *options)
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert "nothing speaks against it" not in outcome.out
    return "\n".join(line for line in outcome.err.splitlines() if line.startswith("insight: error: "))


def warned(numbers: dict[str, Any]) -> str:
    return "\n".join(f"{warning['problem']}: {warning['remedy']}" for warning in numbers["warnings"])


def test_the_lines_of_a_good_configuration(
    insight: Insight, workplace: Path, new_processes: Callable[[], set[psutil.Process]]
) -> None:
    before = sorted(workplace.rglob("*"))
    outcome = insight(*CHECK)
    assert outcome.code == 0, outcome.err
    for words in (
        "train  ",
        "validation  ",
        "ByteTokenizer, 257 tokens",
        "4 sequences x 16 tokens = 64 tokens",
        "after 4 steps: 256 tokens",
        "memory ",
        "  optimizer",
        "  activations",
        "  logits",
        "checkpoints of",
        "ran on 2 sequences",
        "expected time",
        "2 validations",
        "nothing speaks against it",
    ):
        assert words in outcome.out, words
    assert sorted(workplace.rglob("*")) == before
    assert not new_processes()


@pytest.mark.slow
def test_the_numbers_are_those_of_the_run(workplace: Path) -> None:
    options = ("--model.network.hidden_size=128", "--model.optimizer=AdamW")
    numbers = found(*options)
    assert warned(numbers) == ""
    network = DecoderConfig(hidden_size=128, num_layers=1, max_sequence_length=32, attention=ATTENTION)
    count = sum(p.numel() for p in network.build(VOCABULARY).parameters())
    memory, outlook = numbers["memory"], numbers["outlook"]
    assert numbers["network"]["num_parameters"] == count
    assert memory["weight_bytes"] == memory["gradient_bytes"] == 4 * count
    assert memory["optimizer_bytes"] == 8 * count
    assert memory["needed_bytes"] == memory["process_bytes"] > memory["program_bytes"] + 16 * count
    assert (outlook["num_steps"], outlook["num_tokens"], outlook["num_validations"]) == (4, 256, 2)
    spent = 4 * outlook["seconds_per_step"] + 2 * outlook["seconds_per_validation"]
    assert outlook["seconds"] == pytest.approx(spent)
    assert outlook["seconds_per_validation"] > 0
    assert numbers["trial"]["num_sequences"] == 2

    assert run_insight("fit", *CHECK[1:], *options).code == 0
    checkpoint = workplace / "runs/tiny/1/checkpoints/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == outlook["num_steps"]
    assert numbers["disk"]["checkpoint_bytes"] == pytest.approx(checkpoint.stat().st_size, rel=0.05)


def test_token_ids_take_what_is_said(workplace: Path) -> None:
    numbers = found("--data.cache_dir=own")
    files = [path for kind in ("bin", "idx") for path in (workplace / "own").rglob(f"*.{kind}")]
    assert len(files) == 2 * len(SPLITS)
    assert numbers["disk"]["token_store_bytes"] == sum(path.stat().st_size for path in files)


def test_all_mistakes_at_once(workplace: Path) -> None:
    errors = refused(
        "--data.validation_files=no-validation.txt",
        "--data.test_files=no-test.txt",
        "--data.sequence_length=64",
        "--run.root=/proc/insight-runs",
    )
    for words in ("no-validation.txt", "no-test.txt", "sequence_length=64", "/proc/insight-runs"):
        assert words in errors
    assert len(errors.splitlines()) == 4


@pytest.fixture
def small_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the memory limit of this process's control group, in files as the kernel has them."""
    group, own = tmp_path / "cgroup" / "job", tmp_path / "own_groups"
    group.mkdir(parents=True)
    own.write_text("0::/job\n")

    def limit(num_bytes: int) -> None:
        (group / "memory.max").write_text(f"{num_bytes}\n")
        monkeypatch.setattr(limits, "_CGROUP_ROOT", tmp_path / "cgroup")
        monkeypatch.setattr(limits, "_OWN_CGROUPS", own)

    return limit


@pytest.mark.slow
def test_too_big_for_the_memory(workplace: Path, small_machine: Callable[[int], None]) -> None:
    """A network of 30 billion parameters: refused before a byte of it is taken."""
    small_machine(8_000_000_000)
    huge = ("--model.network.hidden_size=16384", "--model.network.num_layers=10")
    errors = refused(*huge)
    assert "GB of memory needed, 8.0 GB there" in errors
    assert "data.batch_size" in errors


@pytest.mark.slow
def test_a_limit_decides(workplace: Path, small_machine: Callable[[int], None]) -> None:
    needed = found()["memory"]["needed_bytes"]
    small_machine(needed // 2)
    assert "of memory needed" in refused()
    small_machine(needed * 2)
    assert found()["memory"]["usable_bytes"] == needed * 2


def test_a_full_disk(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 1000, "total": 10**12, "used": 10**12})()
    monkeypatch.setattr("insight.runtime.files.shutil.disk_usage", lambda path: full)
    errors = refused()
    assert "free some space" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_checkpoints_that_are_kept(workplace: Path) -> None:
    """Three of the best, one at each of four steps, the last two, and the one that is being written."""
    writer = (
        "--trainer.callbacks+=RunCheckpoint",
        "--trainer.callbacks.keep_best=3",
        "--trainer.callbacks.keep_last=2",
    )
    usual = found()["disk"]
    assert usual["num_checkpoints"] == 3
    disk = found(*writer, "--trainer.callbacks.keep_every_n_steps=1")["disk"]
    assert disk["num_checkpoints"] == 10
    assert disk["needed_bytes"] == 10 * usual["checkpoint_bytes"]
    beside = found(*writer, "--trainer.callbacks.asynchronous=true")["memory"]
    assert beside["copy_bytes"] == beside["weight_bytes"] + beside["optimizer_bytes"]


@pytest.mark.slow
def test_an_average_of_the_weights(workplace: Path) -> None:
    usual, numbers = found(), found("--trainer.callbacks+=AveragedWeights")
    weights = usual["memory"]["weight_bytes"]
    assert numbers["memory"]["average_bytes"] == 2 * weights
    assert numbers["disk"]["checkpoint_bytes"] == usual["disk"]["checkpoint_bytes"] + weights


@pytest.mark.slow
def test_a_batch_size_that_is_to_be_found(workplace: Path) -> None:
    assert found("--data.batch_size=auto")["batches"]["batch_size"] == 1  # of so little text


@pytest.mark.slow
def test_several_processes(workplace: Path, new_processes: Callable[[], set[psutil.Process]]) -> None:
    one = found()
    two = found("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    assert two["processes"]["num_processes"] == 2
    assert two["batches"]["tokens_per_step"] == 2 * one["batches"]["tokens_per_step"]
    assert two["batches"]["per_epoch"] == one["batches"]["per_epoch"] // 2
    assert two["memory"]["needed_bytes"] == 2 * two["memory"]["process_bytes"]
    assert not new_processes()


@pytest.mark.slow
def test_sharding_saves_memory(workplace: Path) -> None:
    big = ("--model.network.hidden_size=512", "--trainer.devices=2", "--trainer.accelerator=cpu")
    whole, parts = (found(*big, f"--trainer.strategy={name}")["memory"] for name in ("ddp", "fsdp2"))
    saved = (whole["weight_bytes"] + whole["optimizer_bytes"]) / 2
    difference = (whole["process_bytes"] - whole["program_bytes"]) - (
        parts["process_bytes"] - parts["program_bytes"]
    )
    assert difference == pytest.approx(saved)


@pytest.mark.slow
def test_machines_that_are_not_here(workplace: Path) -> None:
    """A configuration for a cluster is checked on one machine."""
    numbers = found("--trainer.num_nodes=3", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    assert numbers["processes"]["num_processes"] == 3
    assert numbers["batches"]["tokens_per_step"] == 3 * 64
    assert numbers["memory"]["needed_bytes"] == numbers["memory"]["process_bytes"]


def test_more_processes_than_text(workplace: Path) -> None:
    errors = refused("--trainer.devices=64", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    assert "a step takes 256 sequences, more than the training text has" in errors


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [2, 3, 1000])
def test_accumulation(workplace: Path, accumulation: int) -> None:
    per_epoch = found()["batches"]["per_epoch"]
    assert per_epoch % 3
    options = (f"--trainer.accumulate_grad_batches={accumulation}", "--trainer.max_steps=100")
    if accumulation > per_epoch:
        assert f"an epoch has only {per_epoch} batches" in refused(*options)
        return
    numbers = found(*options)
    assert numbers["batches"]["per_epoch"] == per_epoch // accumulation * accumulation
    assert numbers["batches"]["tokens_per_step"] == 64 * accumulation
    assert "the last step of an epoch" not in warned(numbers)
    # Only a limit of one's own cuts a step, and a run that ends within the first epoch does not meet it.
    partial = "the last step of an epoch" in warned(found(*options, "--trainer.limit_train_batches=8"))
    assert partial == bool(8 % accumulation)
    short = (options[0], "--trainer.limit_train_batches=8", "--trainer.max_steps=2")
    assert "the last step of an epoch" not in warned(found(*short))


def test_validations_that_would_never_come(workplace: Path) -> None:
    options = ("--trainer.val_check_interval=1000", "--trainer.check_val_every_n_epoch=1")
    assert "trainer.val_check_interval=1000: an epoch has only" in refused(*options)


@pytest.mark.slow
def test_a_schedule_and_the_length_of_the_run(workplace: Path) -> None:
    def warmup(length: str) -> tuple[str, str]:
        return "--model.schedule=WarmupCosine", f"--model.schedule.warmup_steps={length}"

    assert "do not fit into a run of 4 steps" in refused(*warmup("100"))
    assert "do not fit into a run of 4 steps" in refused(*warmup("320 tokens"))
    usual = run_insight(*CHECK[:2], "--json=true")  # ten steps of warm-up, of a run of four
    assert "learning rate reaches only" in warned(json.loads(usual.out))
    assert warned(found(*warmup("192 tokens"), "--trainer.max_steps=100")) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "said"), [(2e9, "0.02 times the rate"), (3e11, "")])
def test_bfloat16_by_measured_rates(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, rate: float, said: str
) -> None:
    flops = {"float32": 1e11, "bfloat16": rate}
    machine = Hardware(2, 8 << 30, "AVX2", "cpu", "made up", True, flops)
    monkeypatch.setattr("insight.api.configuration.this_machine", lambda: machine)
    words = warned(found("--trainer.precision=bf16-mixed"))
    assert said in words
    assert bool(words) == bool(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer.precision=16-mixed", "--trainer.accelerator=cpu"], "bf16-mixed"),
        (["--trainer.accelerator=gpu"], "accelerator"),
        (["--trainer.devices=0"], "devices"),
    ],
)
def test_what_this_machine_cannot(workplace: Path, options: list[str], said: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # one of Lightning's own would stand beside the error
        silence_libraries()
        errors = refused(*options)
    assert said in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_a_time_budget(workplace: Path) -> None:
    """One that is over before the check began, and one that decides the number of steps."""
    endless = "--trainer.max_steps=-1"
    assert found("--run.time_budget=0.001", endless)["outlook"]["num_steps"] == 1
    outlook = found("--run.time_budget=30", endless)["outlook"]
    assert outlook["seconds"] <= 30 < outlook["seconds"] + 2 * outlook["seconds_per_validation"] + 1
    assert outlook["num_epochs"] > 0


def test_epochs_end_a_run(workplace: Path) -> None:
    numbers = found("--trainer.max_steps=-1", "--trainer.max_epochs=2")
    assert numbers["outlook"]["num_steps"] == 2 * numbers["batches"]["per_epoch"]
    assert numbers["outlook"]["num_epochs"] == 2


def test_one_sequence_is_all_there_is(workplace: Path) -> None:
    (workplace / "train.txt").write_text("It is a truth univer", encoding="utf-8")
    numbers = found("--data.batch_size=1")
    assert numbers["trial"]["num_sequences"] == 1
    assert numbers["outlook"]["seconds_per_step"] > 0


@pytest.mark.slow
def test_parameters_without_gradient(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "users_module.py").write_text(
        "import torch\nfrom insight.training import LanguageModelingModule\n"
        "class Idle(LanguageModelingModule):\n"
        "    def configure_model(self):\n"
        "        super().configure_model()\n"
        "        self.spare = torch.nn.Parameter(torch.zeros(3))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(workplace)
    assert "1 parameters get no gradient (spare" in warned(found("--model=users_module.Idle"))
    assert "no gradient" not in warned(found())


@pytest.mark.slow
def test_a_loss_that_is_no_number(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "users_loss.py").write_text(
        "from insight.training import LanguageModelingModule\n"
        "class Infinite(LanguageModelingModule):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return super().training_step(batch, batch_idx) * float('inf')\n"
        "    def log(self, name, value, **options):\n"
        "        super().log(name, value * float('nan'), **options)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(workplace)
    assert refused("--model=users_loss.Infinite")


def test_a_network_that_can_be_trained_and_not_write(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token is generated behind a window of the training text; positions beyond their length can be."""
    found(
        "--model.network.max_sequence_length=64",
        "--model.network.attention.position.scaling=DynamicNTKScaling",
        "--model.network.attention.position.scaling.factor=2",
        "--model.network.attention.position.scaling.original_length=8",
    )

    def refuse(network: object, tokenizer: object, prompt: str, settings: GenerationSettings) -> None:
        assert len(prompt) > 8
        raise ConfigError("cannot write", "mend it", option="position", value="Broken")

    monkeypatch.setattr("insight.training.language_modeling.generate", refuse)
    assert "position=Broken: cannot write: mend it" in refused()

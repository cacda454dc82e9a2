"""Every command that README.md, docs/ and the comments of configs/ show runs as it stands there.

Commands that train have all default callbacks and run at the precision that this machine chooses and at the
other one. Each is only shortened: by ``tests/short_NAME.yaml`` if it trains the configuration NAME and there
is such a file, else by ``tests/short_quickstart.yaml``. ``LEFT_OUT`` lists what cannot run here.
"""

from __future__ import annotations

import functools
import io
import json
import random
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Outcome, run_insight
from documented_commands import ROOT, Command, commands_of, documented_commands, pages
from real_processes import PYTHON_INSIGHT, started

from insight.data import read_corpus
from insight.optimization.measurement import footprint
from insight.reporting import read_samples, read_summary
from insight.runtime.hardware import choose_precision, measure_hardware

LEFT_OUT = {
    ". .venv/bin/activate": "tests/test_readme.py runs the lines under Start in a shell",
    '[ $? -eq 143 ] && scontrol requeue "$SLURM_JOB_ID"': "needs SLURM; tests/cli/test_cluster_files.py",
    "dask scheduler --scheduler-file /shared/scheduler.json": "tests/data/test_dask_executor.py",
    "dask worker --scheduler-file /shared/scheduler.json --nthreads 1 --nworkers 16": "as the line above",
    "insight fit --config C --trainer.devices 4 --trainer.strategy ddp": "four processes; two run here",
    "insight fit --config FILE": "FILE is a configuration; those that come with Insight train here",
    "insight fit --config my.yaml": "tests/cli/test_own_parts.py writes the package of the page",
    "insight tokenizer encode --tokenizer tokenizer.json --files 'my/*.jsonl' --executor dask --scheduler "
    "tcp://node1:8786": "tests/data/test_dask_executor.py has a cluster",
    "kubectl apply -f configs/cluster/kubernetes.yaml": "needs Kubernetes; tests/cli/test_cluster_files.py",
    "pip install 'insight[dask]'": "would change the environment",
    "pip install 'insight[fast]'": "would change the environment",
    "python -m insight.safety.toxicity_classifier": "writes into the package; "
    "tests/safety/test_toxicity_classifier.py trains it",
    "sbatch configs/cluster/many_nodes.sbatch CONFIG": "needs SLURM; tests/cli/test_cluster_files.py",
    "sbatch configs/cluster/one_node.sbatch CONFIG": "needs SLURM; tests/cli/test_cluster_files.py",
    "scontrol requeue": "needs SLURM",
    "srun insight fit": "needs SLURM",
    "srun insight fit --config C": "needs SLURM; tests/cli/test_launch.py sets its variables",
    "tensorboard --logdir runs": "serves until it is ended",
}
"""The commands that do not run here, each with the reason, or with the test that does what can be done."""

ALL = documented_commands()
COMMANDS = {command.text: command for command in ALL if command.text not in LEFT_OUT}
INSIGHT = {text: command for text, command in COMMANDS.items() if command.words[:1] == ["insight"]}
NAMES = sorted(text for text, command in INSIGHT.items() if command.is_name)
RUN = [command for command in INSIGHT.values() if not command.is_name]
TRAININGS = [command for command in RUN if command.words[1] == "fit" and "help" not in command.text]
OTHERS = [command for command in RUN if command not in TRAININGS]
TORCHRUN = sorted(text for text in COMMANDS if text.startswith("torchrun "))
MAKE = sorted(text for text in COMMANDS if text.startswith("make "))
BENCHMARKS = sorted(text for text in COMMANDS if text.startswith("python -m benchmarks."))
# What makes a command short, beside the configuration of a training.
SHORTER = {
    "benchmark": ["--seconds", "0.2", "--num_processes", "1", "--text", "my/held-out.txt"],
    "generate": ["--max_new_tokens", "8"],
    "quantize": ["--seconds", "0.2", "--compile", "off", "--method", "bf16"],
    "redteam run": ["--suite", "watch"],
}
# What these do depends on the precision of the training; the others read weights in float32.
AT_BOTH_PRECISIONS = ("check", "generate", "model", "quantize", "test")
PRECISIONS = ("chosen", "other")
TWO_TEST_SENTENCES = ['--data.test_files={"source": "english.txt", "target": "my-english.txt"}']


def precision_options(precision: str) -> list[str]:
    """Nothing for the precision that the machine chooses, or the option for the other one."""
    chosen = choose_precision(measure_hardware())
    other = "32-true" if chosen.startswith("bf16") else "bf16-mixed"
    return [] if precision == "chosen" else ["--trainer.precision", other]


def short_config(command: Command) -> Path:
    """The file that shortens the training of a command."""
    own = [ROOT / "tests" / f"short_{name}.yaml" for name in reversed(command.configs)]
    return next((path for path in own if path.is_file()), ROOT / "tests/short_quickstart.yaml")


def short_arguments(command: Command, precision: str) -> list[str]:
    """The arguments of a command of ``insight``, with the options that shorten it behind them."""
    words = command.words[1:]
    if command in TRAININGS or words[0] == "check":
        # A run that is resumed has been shortened.
        short = [] if "RUN" in words else ["--config", str(short_config(command))]
        if "translation" in command.configs:
            short += TWO_TEST_SENTENCES
        return [*words, *short, "--trainer.accelerator", "cpu", *precision_options(precision)]
    of_action = SHORTER.get(" ".join(words[:2]), [])
    return [*words, *of_action, *SHORTER.get(words[0], [])]


def write_files(folder: Path) -> None:
    """The text and the configurations that the pages speak of, by the names that they use."""
    novel = read_corpus("austen-emma")
    parts = [novel[start : start + 60_000] for start in range(0, 180_000, 60_000)]
    for name in ("my/0.txt", "my/1.txt", "my/held-out.txt", "en/0.txt", "de/0.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(parts[len(name) % 3], encoding="utf-8")
    for seed, name in enumerate(("en/1.txt", "de/1.txt")):  # short, with words for thousands of tokens
        letters = random.Random(seed).choices("abcdefghijklmnopqrst", k=80_000)
        words = ["".join(letters[start : start + 8]) for start in range(0, len(letters), 8)]
        (folder / name).write_text(" ".join(words * 2), encoding="utf-8")
    for name in ("my.jsonl", "my/0.jsonl"):
        lines = (json.dumps({"text": line}) + "\n" for line in parts[0].splitlines())
        (folder / name).write_text("".join(lines), encoding="utf-8")
    (folder / "configs").symlink_to(ROOT / "configs")
    for name in ("english.txt", "my-english.txt", "news.en"):
        (folder / name).write_text("In the beginning\n\nAnd God said\n", encoding="utf-8")
    for name in ("mono.es", "news.es"):
        (folder / name).write_text("En el principio\n\nY dijo Dios\n", encoding="utf-8")
    for name in ("FILE", "C", "run.yaml"):
        (folder / name).symlink_to(ROOT / "configs/quickstart.yaml")


def train(command: Command, precision: str, folder: Path) -> Path:
    """Train in a folder, in processes of its own if the command asks for several; return the run."""
    arguments = short_arguments(command, precision)
    if "fsdp2" in command.configs:
        with started([*PYTHON_INSIGHT, *arguments], folder, "command") as running:
            outcome = running.wait(400)
    else:
        outcome = run_insight(*arguments)
    check_success(command.text, outcome)
    return max(folder.glob("runs/*/[0-9]*"), key=lambda run: run.stat().st_mtime_ns)


def check_success(text: str, outcome: Outcome) -> None:
    """Fail with what a command has printed unless it succeeded."""
    assert outcome.code == 0, f"{text}\n{outcome.err}"
    assert "Traceback" not in outcome.err, f"{text}\n{outcome.err}"


@pytest.fixture(scope="module")
def workplace_of(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Callable[[str], Path]:
    """The folder of a precision, with the models that the pages speak of; made when it is first needed."""

    @functools.cache
    def make(precision: str) -> Path:
        folder = tmp_path_factory.mktemp(precision)
        write_files(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            run = train(COMMANDS["insight fit --config configs/quickstart.yaml"], precision, folder)
            if precision == "chosen":
                other = train(COMMANDS["insight fit --config configs/translation.yaml"], precision, folder)
                (folder / "runs/backwards").mkdir()
                for name in ("runs/backwards/1", "runs/translation/2"):
                    (folder / name).symlink_to(other)
            quantize = ["quantize", "--checkpoint", str(run), "--output", "smaller", *SHORTER["quantize"]]
            check_success("insight quantize", run_insight(*quantize))
        shutil.copytree(run, folder / "RUN")
        earlier = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
        torch.save(earlier | {"global_step": 1}, folder / "RUN/checkpoints/last-00000001.ckpt")
        (folder / "runs/other").mkdir()
        for name, model in (("A", run), ("B", folder / "smaller"), ("runs/other/3", run)):
            (folder / name).symlink_to(model)
        for name in ("tokenizer.json", "other.json"):
            shutil.copy(run / "tokenizer.json", folder / name)
        return folder

    return make


def test_the_pages_show_commands() -> None:
    assert len(pages()) > 40
    assert len(TRAININGS) > 30
    assert len(OTHERS) > 20
    assert len({command.page for command in ALL}) > 38
    checked = {*NAMES, *(command.text for command in RUN), *TORCHRUN, *MAKE, *BENCHMARKS}
    assert COMMANDS.keys() - checked == set()


def test_only_commands_of_the_pages_are_left_out() -> None:
    assert LEFT_OUT.keys() - {command.text for command in ALL} == set()
    for reason in LEFT_OUT.values():
        for word in reason.replace(";", " ").split():
            assert not word.startswith("tests/") or (ROOT / word).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("command", TRAININGS, ids=lambda command: command.text)
def test_a_training(
    command: Command,
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workplace_of: Callable[[str], Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    if "RUN" in command.words:
        shutil.copytree(workplace_of(precision) / "RUN", "runs/quickstart/1")
        Path("RUN").symlink_to("runs/quickstart/1")
    run = train(command, precision, tmp_path)
    assert read_samples(run)
    assert "validation/bits_per_byte" in read_summary(run)
    assert (run / "report.html").is_file()
    saved = (run / "config.yaml").read_text(encoding="utf-8")
    assert (run / "quantization/report.json").is_file() == ("QuantizeAtEnd" in saved)
    assert (run / "safety/summary.json").is_file() == ("SafetyEvaluation" in saved)
    for name in command.configs[-1:]:  # what its own file chooses, under full names in the one that was saved
        config = ROOT / "configs" / f"{name}.yaml"
        chosen = config.read_text(encoding="utf-8") if config.is_file() else ""
        named = re.findall(r"class_path: (\w+)", re.sub(r"(?m)^ *#.*", "", chosen))
        assert all(re.search(rf"\b{kind}\b", saved) for kind in named), named


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({command.page for command in OTHERS}))
def test_the_other_commands_of_a_page(
    page: str, workplace_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page, since one writes what the next one reads."""
    # Loading models in fresh processes costs most in a benchmark: one checkpoint and one artefact are enough.
    best = workplace_of("chosen") / "RUN/checkpoints/best.ckpt"
    models = {False: best, True: workplace_of("chosen") / "smaller"}
    load_once = functools.cache(footprint._load_once)
    monkeypatch.setattr(
        footprint, "_load_once", lambda path, device: load_once(models[path.is_dir()], device)
    )
    for precision in PRECISIONS:
        monkeypatch.chdir(workplace_of(precision))
        for command in (command for command in OTHERS if command.page == page):
            arguments = short_arguments(command, precision)
            is_at_both = command.words[1] in AT_BOTH_PRECISIONS and "translation" not in command.text
            if precision == "chosen" or is_at_both:
                if "--output" in arguments:  # two commands, also of two pages, may write one file or folder
                    output = Path(arguments[arguments.index("--output") + 1])
                    shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"In the beginning\n")))
                if "KEY" in arguments:
                    stores = json.loads(run_insight("cache", "list", "--json").out)["stores"]
                    arguments[arguments.index("KEY")] = stores[0]["key"]
                check_success(command.text, run_insight(*arguments))


@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_a_page_names(name: str) -> None:
    outcome = run_insight(*name.split()[1:], "--help")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"usage: {name} ")


@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_has_the_options_of_the_page(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, module, *options = command.split()
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    assert set(options) <= set(capsys.readouterr().out.replace("[", " ").replace("]", " ").split())


@pytest.mark.parametrize("command", MAKE)
def test_a_goal_of_make(command: str) -> None:
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", TORCHRUN)
def test_a_line_for_torchrun(command: str) -> None:
    """Its options are torchrun's, and the rest is a command that trains above."""
    from torch.distributed.run import parse_args

    options = parse_args(command.split()[1:])
    assert options.module
    words = ["srun", options.training_script, *options.training_script_args]
    assert " ".join(words) == "srun insight fit --config C"


def test_a_wrong_command_would_be_noticed() -> None:
    page = (
        "```bash\ninsight generate --checkpoint RUN --temprature 1   # text\n```\n`insight cache lst\\|pin`\n"
    )
    wrong, unknown, pin = commands_of(page, "page.md")
    outcome = run_insight(*short_arguments(wrong, "chosen"))
    with pytest.raises(AssertionError, match="temprature"):
        check_success(wrong.text, outcome)
    with pytest.raises(AssertionError, match="lst"):
        test_a_command_that_a_page_names(unknown.text)
    test_a_command_that_a_page_names(pin.text)


def test_a_configuration_is_shortened_by_its_own_file() -> None:
    assert (
        short_config(Command("", "insight fit --config configs/quickstart.yaml")).name
        == "short_quickstart.yaml"
    )
    assert short_config(Command("", "insight fit --config packing")).name == "short_quickstart.yaml"

"""``insight redteam``: run, compare, list, and every mistake in one line with nothing written."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Outcome, run_insight, write_tiny

from insight.runtime.errors import ConfigError

Insight = Callable[..., Outcome]
SUITE = """
measures:
  - {attack: {name: injection, num_items: 2, max_new_tokens: 2}, evaluator: nonce}
  - {attack: {name: toxicity, num_samples: 2, max_new_tokens: 16}, evaluator: toxicity, max_items: 2}
  - attack: {name: memorisation, num_passages: 3, prefix_characters: 40, num_new_tokens: 4}
    evaluator: verbatim
"""


@pytest.fixture
def suite(workplace: Path) -> str:
    (workplace / "small.yaml").write_text(SUITE, encoding="utf-8")
    return "small.yaml"


@pytest.mark.slow
def test_run_and_compare(insight: Insight, workplace: Path, finished_run: Path, suite: str) -> None:
    # The text files that its configuration names lie in the working folder.
    run = ("redteam", "run", "--checkpoint", str(finished_run), "--suite", suite)
    outcome = insight(*run, "--output", "first")
    assert outcome.code == 0, outcome.err
    for words in ("injection", "followed", "toxicity", "memorisation", "extracted", "95% interval"):
        assert words in outcome.out
    names = sorted(path.name for path in (workplace / "first").iterdir())
    assert names == ["ledger.jsonl", "report.html", "results.jsonl", "summary.json"]
    names.remove("report.html")  # it says which folder it shows
    assert "injection" in (workplace / "first" / "report.html").read_text(encoding="utf-8")
    assert not list(workplace.glob(".*unfinished"))
    assert insight(*run, "--output", "second", "--workers", "2").code == 0
    for name in names:
        assert (workplace / "first" / name).read_bytes() == (workplace / "second" / name).read_bytes()
    compared = insight("redteam", "compare", "first", "second")
    assert compared.code == 0
    assert compared.out.count("no difference shown") == 3
    record = json.loads(insight("redteam", "compare", "first", "second", "--json").out)
    assert [entry["num_equal"] == entry["num_pairs"] for entry in record["comparisons"]] == [True] * 3


def test_without_an_output_the_figures_are_only_printed(
    insight: Insight, workplace: Path, finished_run: Path, suite: str
) -> None:
    before = sorted(workplace.rglob("*"))
    options = ("--suite", suite, "--measure", "injection", "--json")
    outcome = insight("redteam", "run", "--checkpoint", str(finished_run), *options)
    summary = json.loads(outcome.out)
    assert [measure["measure"] for measure in summary["measures"]] == ["injection"]
    assert summary["metrics"]["safety/injection/followed"]["n"] == 2
    assert sorted(workplace.rglob("*")) == before


def test_a_checkpoint_from_elsewhere_has_no_training_text(
    insight: Insight, workplace: Path, finished_run: Path, suite: str
) -> None:
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", workplace / "lone.ckpt")
    outcome = insight("redteam", "run", "--checkpoint", "lone.ckpt", "--suite", suite)
    assert "memorisation: not applicable (the training text is not known)" in outcome.out


def test_a_python_function_is_a_target(insight: Insight, workplace: Path, suite: str) -> None:
    (workplace / "parrots.py").write_text(
        "def polly(prompt, settings):\n    return prompt\n", encoding="utf-8"
    )
    sys.path.insert(0, str(workplace))
    try:
        outcome = insight("redteam", "run", "--target", "python:parrots:polly", "--suite", suite)
        wrong = insight("redteam", "run", "--target", "python:parrots:pollly", "--suite", suite)
    finally:
        sys.path.remove(str(workplace))
        sys.modules.pop("parrots", None)
    assert outcome.code == 0, outcome.err
    assert re.search(r"injection +followed +0 +0 to ", outcome.out)
    assert "did you mean 'polly'?" in wrong.error_line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rn"], ["rn", "did you mean 'run'?"]),
        (["run"], ["--checkpoint", "--target"]),
        (["run", "--checkpoint", "x", "--target", "python:a:b"], ["one of --checkpoint and --target"]),
        (["run", "--checkpoint", "missing"], ["missing", "does not exist"]),
        (["run", "--checkpoint", "RUN", "--suite", "bsae"], ["'bsae'", "did you mean 'base'?"]),
        (["run", "--checkpoint", "RUN", "--suite", "empty.yaml"], ["'empty'", "is empty"]),
        (
            ["run", "--checkpoint", "RUN", "--suite", "attack.yaml"],
            ["attack", "did you mean 'memorisation'?"],
        ),
        (["run", "--checkpoint", "RUN", "--suite", "evaluator.yaml"], ["evaluator", "did you mean 'nonce'?"]),
        (["run", "--checkpoint", "RUN", "--measure", "bais"], ["'bais'", "did you mean 'bias'?"]),
        (["run", "--checkpoint", "RUN", "--num_samples", "0"], ["toxicity", "num_samples=0"]),
        (["run", "--checkpoint", "RUN", "--seed", "-1"], ["seed=-1"]),
        (["run", "--checkpoint", "RUN", "--device", "toaster"], ["toaster"]),
        (["run", "--checkpoint", "RUN", "--workers", "0", "--measure", "injection"], ["num_workers=0"]),
        (["run", "--checkpoint", "RUN", "--output", "there"], ["there", "exists already"]),
        (["run", "--checkpoint", "RUN", "--outptu", "there"], ["did you mean '--output'?"]),
        (["run", "--target", "pyhton:a:b"], ["unknown target 'pyhton'", "did you mean 'python'?"]),
        (["run", "--target", "python:nowhere_at_all:f"], ["nowhere_at_all", "cannot be imported"]),
        (["compare", "there", "RUN"], ["there", "holds no results"]),
        (["compare", "there"], ["SECOND"]),
    ],
)
def test_mistakes(
    insight: Insight, workplace: Path, finished_run: Path, arguments: list[str], said: list[str]
) -> None:
    (workplace / "there").mkdir()
    for name, measures in (
        ("empty", "[]"),
        ("attack", "[{attack: memorization, evaluator: verbatim}]"),
        ("evaluator", "[{attack: injection, evaluator: nonse}]"),
    ):
        (workplace / f"{name}.yaml").write_text(f"measures: {measures}\n", encoding="utf-8")
    before = sorted(workplace.rglob("*"))
    outcome = insight("redteam", *(str(finished_run) if word == "RUN" else word for word in arguments))
    assert outcome.code == 2, outcome.err
    for words in said:
        assert words in outcome.error_line
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.slow
def test_the_ledger_of_another_plan(
    insight: Insight, workplace: Path, finished_run: Path, suite: str
) -> None:
    run = ("redteam", "run", "--checkpoint", str(finished_run), "--suite", suite)
    assert insight(*run, "--output", "done").code == 0
    # As if this one had been killed before its end.
    shutil.copytree(workplace / "done", workplace / ".out.unfinished")
    before = (workplace / ".out.unfinished" / "ledger.jsonl").read_bytes()
    outcome = insight(*run, "--output", "out", "--seed", "5")
    assert outcome.code == 2
    assert "ledger of another plan" in outcome.error_line
    assert not (workplace / "out").exists()
    assert (workplace / ".out.unfinished" / "ledger.jsonl").read_bytes() == before
    assert insight(*run, "--output", "out").code == 0
    assert (workplace / "out" / "summary.json").read_bytes() == (
        workplace / "done" / "summary.json"
    ).read_bytes()


@pytest.fixture
def importable(workplace: Path) -> Iterator[Path]:
    """Modules of the working folder are found, and forgotten after each command."""
    sys.path.insert(0, str(workplace))
    # A shell lets its background jobs ignore SIGINT, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield workplace
    signal.signal(signal.SIGINT, before)
    sys.path.remove(str(workplace))
    sys.modules.pop("answering", None)


@pytest.mark.parametrize("body", ["return ''", "return '\ufffd\ufffd'", "raise RuntimeError('out of order')"])
def test_nothing_measured_is_a_failure(insight: Insight, importable: Path, suite: str, body: str) -> None:
    (importable / "answering.py").write_text(f"def answer(prompt, settings):\n    {body}\n", encoding="utf-8")
    for options in ((), ("--json",)):
        outcome = insight("redteam", "run", "--target", "python:answering:answer", "--suite", suite, *options)
        assert outcome.code == 1
        assert "nothing was measured" in outcome.error_line
        assert "no data" in outcome.out


def test_nothing_compared_is_a_failure(insight: Insight, importable: Path, suite: str) -> None:
    (importable / "answering.py").write_text(
        "def answer(prompt, settings):\n    return ''\n", encoding="utf-8"
    )
    run = ("redteam", "run", "--target", "python:answering:answer", "--suite", suite)
    assert [insight(*run, "--output", name).code for name in ("a", "b")] == [1, 1]
    outcome = insight("redteam", "compare", "a", "b")
    assert outcome.code == 1
    assert "nothing was compared" in outcome.error_line


def test_an_interrupted_run_says_that_the_same_command_goes_on(
    insight: Insight, importable: Path, suite: str
) -> None:
    """Ctrl-C and SIGTERM after some answers; other code under the old name does not go on."""
    code = """\
import os, signal
COUNT = [0]
def answer(prompt, settings):
    COUNT[0] += 1
    if COUNT[0] == 6 and os.environ.get("INTERRUPT"):
        os.kill(os.getpid(), int(os.environ["INTERRUPT"]))
    return "a letter"
"""
    module = importable / "answering.py"
    module.write_text(code, encoding="utf-8")
    run = ("redteam", "run", "--target", "python:answering:answer", "--suite", suite, "--output", "out")
    for number, exit_code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("INTERRUPT", str(int(number)))
            outcome = insight(*run)
        sys.modules.pop("answering", None)
        assert outcome.code == exit_code
        assert "batches are answered in .out.unfinished; the same command goes on from there" in outcome.err
    module.write_text(code.replace("a letter", "a novel"), encoding="utf-8")
    other = insight(*run)
    assert other.code == 2
    assert "ledger of another model" in other.error_line
    sys.modules.pop("answering", None)
    module.write_text(code, encoding="utf-8")
    outcome = insight(*run)
    assert outcome.code == 0, outcome.err
    assert "going on with .out.unfinished" in outcome.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (option, value)
        for option in ("--checkpoint", "--target", "--suite", "--measure", "--config", "--output")
        for value in ("", "nan", "1e999")
        if (option, value) not in (("--output", "nan"), ("--output", "1e999"))
    ]
    + [
        (option, value)
        for option in ("--seed", "--num_samples", "--workers")
        for value in ("", "nan", "inf", "-1", "1e9", str(10**30), "0x10")
        if (option, value) != ("--workers", str(10**30))
    ]
    + [("--num_samples", "1000000000"), ("--device", "")]
    + [(option, "x" * 5000) for option in ("--checkpoint", "--suite", "--output", "--target", "--measure")]
    + [(option, "\ud800") for option in ("--checkpoint", "--suite", "--output")],
)
def test_odd_options(insight: Insight, workplace: Path, suite: str, option: str, value: str) -> None:
    """Empty, not a number, huge: one line with the option, and nothing is written."""
    options = {"--suite": suite, "--target": "python:textwrap:dedent", option: value}
    if option in ("--checkpoint", "--device"):
        options.pop("--target")
        options.setdefault("--checkpoint", "nowhere")
    before = sorted(workplace.rglob("*"))
    outcome = insight("redteam", "run", *(f"{name}={text}" for name, text in options.items()))
    assert outcome.code == 2, outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    "value", ["0", "-1", ".nan", ".inf", "1e30", "1000000000000", "true", "null", "text", "[1]"]
)
@pytest.mark.parametrize(
    ("attack", "option"),
    [
        ("toxicity", "num_samples"),
        ("toxicity", "max_new_tokens"),
        ("injection", "num_items"),
        ("memorisation", "num_new_tokens"),
        ("canaries", "num_controls"),
    ],
)
def test_odd_options_of_an_attack(workplace: Path, attack: str, option: str, value: str) -> None:
    """A suite is a file, so any YAML value can stand there."""
    from insight.safety import find_suite

    entry = f"{{attack: {{name: {attack}, {option}: {value}}}, evaluator: nonce}}"
    (workplace / "odd.yaml").write_text(f"measures: [{entry}]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        find_suite("odd.yaml")
    assert caught.value.option == option


def test_list(insight: Insight) -> None:
    outcome = insight("redteam", "list")
    assert outcome.code == 0
    for words in ("suites: base, watch", "memorisation", "verbatim", "targets: python"):
        assert words in outcome.out


def test_help_and_comparing_need_no_torch(workplace: Path) -> None:
    script = (
        "import sys\nfrom insight.cli.main import main\n"
        "for command in (['--help'], ['run', '--help'], ['compare', 'no', 'where']):\n"
        "    main(['redteam', *command])\n"
        "sys.exit('imported torch' if {'torch', 'lightning'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: insight redteam" in done.stdout
    assert "holds no results" in done.stderr


@pytest.mark.slow
def test_fit_measures_the_best_checkpoint_and_the_quantized_model_beside_it(workplace: Path) -> None:
    write_tiny(workplace)
    config = workplace / "tiny.yaml"
    config.write_text(
        config.read_text(encoding="utf-8")
        + "    - class_path: QuantizeAtEnd\n"
        + "      init_args: {method: int8_weight_only, compile: 'off', max_quality_loss: 0.5, seconds: 5}\n"
        + "    - class_path: SafetyEvaluation\n"
        + "      init_args: {suite: small.yaml, final_suite: small.yaml}\n",
        encoding="utf-8",
    )
    (workplace / "small.yaml").write_text(SUITE, encoding="utf-8")
    outcome = run_insight("fit", "--config", "tiny.yaml", "--run.name", "checked")
    assert outcome.code == 0, outcome.err
    safety = workplace / "runs" / "checked" / "1" / "safety"
    for folder in (safety, safety / "quantized"):
        assert (folder / "summary.json").is_file()
        assert (folder / "ledger.jsonl").is_file()
    comparison = json.loads((safety / "comparison.json").read_text(encoding="utf-8"))
    assert [entry["measure"] for entry in comparison["comparisons"]] == [
        "injection",
        "toxicity",
        "memorisation",
    ]
    assert all(entry["num_pairs"] for entry in comparison["comparisons"])
    summary = json.loads((safety.parent / "summary.json").read_text(encoding="utf-8"))["metrics"]
    assert {"safety/injection/followed", "safety/memorisation/extracted", "safety/time_share"} <= set(summary)
    compared = run_insight("redteam", "compare", str(safety.parent), str(safety / "quantized"))
    assert compared.code == 0, compared.err

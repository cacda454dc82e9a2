"""``insight redteam``: run, compare, list, and every mistake in one line with nothing written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome, run_insight, write_tiny

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
        (["compare", "there"], ["B"]),
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

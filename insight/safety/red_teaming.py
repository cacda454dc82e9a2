"""A suite on a target, from plan to files; interrupted, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from insight.runtime.errors import ConfigError, OutputError
from insight.runtime.files import ensure_writable, publish_folder, writing_to
from insight.safety.ledger import Ledger
from insight.safety.material import Material
from insight.safety.plan import make_plan
from insight.safety.results import Results, evaluate, write_results
from insight.safety.runner import ask
from insight.safety.suite import Suite, find_suite
from insight.safety.targets.base import Target


def red_team(
    target: Target,
    suite: Suite | str = "base",
    material: Material = Material(),
    seed: int = 0,
    output: Path | None = None,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Measure what a model can be made to do.

    With ``output`` the ledger is kept in a hidden folder beside it, which takes its name when everything is
    complete: ``ledger.jsonl``, ``results.jsonl``, ``summary.json``. The same call after an interruption
    goes on there, and ends with the same bytes as one that was never interrupted.

    Args:
        target: The model.
        suite: What to measure, or the name of a shipped suite.
        material: The texts behind the model, for the measures that need them.
        seed: What everything random follows from, 0 or more.
        output: Folder to make.
        num_workers: Batches asked at once.
        progress: Called with the batches done and the batches in all.

    Raises:
        ConfigError: Something cannot work.
        OutputError: ``output`` exists, is the unfinished work of another plan, or cannot be written.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed}: must be from 0 to 2^63 - 1", "use 0")
    if num_workers < 1:
        raise ConfigError(f"num_workers={num_workers}: must be at least 1", "use 1")
    if output is not None and output.exists():
        raise OutputError(f"{output}: exists already", "choose another output folder, or remove it")
    chosen = find_suite(suite) if isinstance(suite, str) else suite
    plan = make_plan(chosen, material, target.capabilities, seed)
    if output is None:
        return evaluate(plan, ask(plan, target, None, num_workers, progress), target)
    ensure_writable(output)
    work = unfinished_folder(output)
    with writing_to(work):
        work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(work / "ledger.jsonl", plan, target.identity)
    results = evaluate(plan, ask(plan, target, ledger, num_workers, progress), target)
    write_results(work, results)
    if not publish_folder(work, output):
        raise OutputError(f"{output}: appeared meanwhile", f"the results are in {work}")
    return results


def unfinished_folder(output: Path) -> Path:
    """Where the work for ``output`` is kept until it is complete."""
    return output.with_name(f".{output.name}.unfinished")

"""Runs a suite on a target, from plan to files; workers and interruptions do not change the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

from insight.runtime.errors import ConfigError, OutputError
from insight.runtime.files import ensure_writable, publish_folder, writing_to
from insight.safety.ledger import Ledger
from insight.safety.material import Material
from insight.safety.plan import Plan, make_plan
from insight.safety.records import Item, Response
from insight.safety.results import Results, evaluate, write_results
from insight.safety.suite import Suite, find_suite
from insight.safety.targets import Target, TranslationTarget, Unanswered, in_one_line, languages_of


def ask(
    plan: Plan,
    target: Target,
    ledger: Ledger | None = None,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """The responses in the order of the plan's items.

    Batches and seeds come from the plan, and responses are written to the ledger in its order, so neither
    the number of workers nor an interruption changes the requests or the bytes of the ledger. Batches in the
    ledger are not asked again. An exception of the target becomes the status ``error`` of the whole batch.
    ``progress`` is called with the number of answered batches, first those in the ledger, and of all batches.

    Raises:
        OutputError: The ledger cannot be written.
    """
    progress = progress or (lambda done, total: None)
    answered: list[Sequence[Response]] = list(ledger.responses) if ledger else []
    left = plan.batches[len(answered) :]
    progress(len(answered), len(plan.batches))
    pool = ThreadPoolExecutor(max(1, min(num_workers, len(left))))
    try:
        for responses in (map if num_workers == 1 else pool.map)(partial(_ask_batch, plan, target), left):
            if ledger:
                ledger.append(responses)
            answered.append(responses)
            progress(len(answered), len(plan.batches))
    finally:
        pool.shutdown(cancel_futures=True)
    by_item = {
        index: response
        for batch, responses in zip(plan.batches, answered, strict=True)
        for index, response in zip(batch, responses, strict=True)
    }
    return [by_item[index] for index in range(len(plan.items))]


def _ask_batch(plan: Plan, target: Target, batch: Sequence[int]) -> list[Response]:
    planned = [plan.items[index] for index in batch]
    items = [entry.item for entry in planned]
    try:
        if items[0].is_written:
            asked = [(entry.item, seed) for entry in planned for seed in entry.seeds]
            prompts, seeds = [item.prompt for item, _ in asked], [seed for _, seed in asked]
            texts: Sequence[str | Unanswered]
            if items[0].capability == "complete":
                translator, beginnings = cast(TranslationTarget, target), [one.beginning for one, _ in asked]
                texts = translator.complete(prompts, beginnings, items[0].settings, seeds)
            else:
                texts = target.generate(prompts, items[0].settings, seeds)
            found = iter(zip(texts, asked, strict=True))
            return [_written([next(found)[0] for _ in entry.seeds]) for entry in planned]
        prompts = [item.prompt for item in items]
        answers = target.log_likelihood(prompts, [item.continuations for item in items])
        return [_scored(item, answer) for item, answer in zip(items, answers, strict=True)]
    except Exception as error:  # a target's failure is a result
        return [Response(status="error", message=in_one_line(error))] * len(items)


def _written(answers: Sequence[str | Unanswered]) -> Response:
    """An item with an unanswered sample is unanswered: a maximum over fewer samples would not compare."""
    for answer in answers:
        if isinstance(answer, Unanswered):
            return Response(status=answer.status, message=answer.message)
        if not isinstance(answer, str):
            return Response(status="error", message=f"answered with {type(answer).__name__}, not with text")
    return Response(texts=tuple(map(str, answers)))


def _scored(item: Item, answer: Sequence[float] | Unanswered) -> Response:
    if isinstance(answer, Unanswered):
        return Response(status=answer.status, message=answer.message)
    if len(answer) != len(item.continuations):
        message = f"{len(answer)} numbers for {len(item.continuations)} continuations"
        return Response(status="error", message=message)
    # The ledger stores infinities as NaN, so they become NaN before they are scored.
    finite = (float(value) if math.isfinite(value) else math.nan for value in answer)
    return Response(log_likelihoods=tuple(finite))


def red_team(
    target: Target,
    suite: Suite | str = "base",
    material: Material = Material(),
    seed: int = 0,
    output: Path | None = None,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Run a safety suite, or the shipped one of that name, on a model.

    With ``output``, the ledger is kept in a hidden folder beside it, which is renamed to ``output`` once
    ``ledger.jsonl``, ``results.jsonl`` and ``summary.json`` are complete. Repeating the call after an
    interruption continues there, and ends with the same bytes as an uninterrupted run.

    Args:
        target: The model.
        suite: The measures.
        material: The training and unseen texts of the model, for the measures that need them.
        seed: Seed that all random values derive from, 0 or more.
        output: Folder to create; without it nothing is written.
        num_workers: Number of batches asked at once.
        progress: Called with the number of answered batches and of all batches.

    Raises:
        ConfigError: An option is out of range or unknown.
        OutputError: ``output`` exists, belongs to the unfinished work of another plan, or cannot be written.
    """
    check_options(seed, num_workers)
    if output is not None and output.exists():
        raise OutputError(f"{output}: exists already", "choose another output folder, or remove it")
    chosen = find_suite(suite) if isinstance(suite, str) else suite
    plan = make_plan(chosen, material, target.capabilities, seed, languages_of(target))
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


def check_options(seed: int, num_workers: int = 1) -> None:
    """Refuse a seed or a number of workers that is out of range, before a model is loaded."""
    if not 0 <= seed < 2**63:
        raise ConfigError("must be from 0 to 2^63 - 1", "use 0", option="seed", value=seed)
    if num_workers < 1:
        raise ConfigError("must be at least 1", "use 1", option="num_workers", value=num_workers)


def unfinished_folder(output: Path) -> Path:
    """The hidden folder that holds the files of ``output`` until they are complete."""
    return output.with_name(f".{output.name}.unfinished")

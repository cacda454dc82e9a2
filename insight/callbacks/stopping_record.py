"""What early stopping saw and answered, as the report reads it: ``early_stopping.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from insight.training.stopping import Criterion, EvidenceLine, History, Verdict, single_verdicts


def stopping_record(criterion: Criterion, history: History, verdict: Verdict, sign: float) -> dict[str, Any]:
    """The newest answer with all that it rests on, as plain values.

    Args:
        criterion: What was asked.
        history: What it was asked about.
        verdict: Its answer.
        sign: -1 where larger values of the metric are better and the criteria saw their negative.
    """
    validations = [asdict(validation) for validation in history.validations]
    for validation in validations:
        for name in ("value", "training_value"):
            if validation[name] is not None:
                validation[name] *= sign
    return {
        "criterion": criterion.to_dict(),
        "step": history.newest.step,
        "num_planned_steps": history.num_planned_steps,
        "evidence": verdict.evidence,
        "validations": validations,
        "answers": [
            {
                "criterion": type(single).__name__,
                "stop": answer.stop,
                "evidence": answer.evidence,
                "figures": answer.figures,
                "lines": [_line(line, sign) for line in answer.lines],
            }
            for single, answer in single_verdicts(criterion, verdict)
        ],
    }


def _line(line: EvidenceLine, sign: float) -> dict[str, Any]:
    return {
        "label": line.label,
        "steps": line.steps,
        **{name: [sign * value for value in getattr(line, name)] for name in ("values", "low", "high")},
    }

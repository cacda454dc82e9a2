"""What early stopping saw and answered, as the report reads it: ``early_stopping.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def stopping_record(
    criterion: Mapping[str, Any],
    validations: Sequence[Mapping[str, Any]],
    num_planned_steps: int | None,
    evidence: str,
    answers: Sequence[tuple[str, Mapping[str, Any]]],
    sign: float,
) -> dict[str, Any]:
    """The newest answer with everything that it rests on, as plain values.

    Args:
        criterion: The criterion that was asked, as a plain configuration.
        validations: The fields of every validation so far, the oldest first; there is at least one.
        num_planned_steps: Optimizer steps of the whole run, if they are known.
        evidence: The sentence that explains the answer.
        answers: For every single criterion the name of its class and the fields of its answer.
        sign: -1 where larger values of the metric are better and the criteria saw their negative.
    """

    def signed(value: float | None) -> float | None:
        return None if value is None else sign * value

    return {
        "criterion": criterion,
        "step": validations[-1]["step"],
        "num_planned_steps": num_planned_steps,
        "evidence": evidence,
        "validations": [
            {**one, "value": signed(one["value"]), "training_value": signed(one["training_value"])}
            for one in validations
        ],
        "answers": [
            {
                "criterion": name,
                "stop": answer["stop"],
                "evidence": answer["evidence"],
                "figures": answer["figures"],
                "lines": [
                    {
                        "label": line["label"],
                        "steps": line["steps"],
                        **{end: [sign * value for value in line[end]] for end in ("values", "low", "high")},
                    }
                    for line in answer["lines"]
                ],
            }
            for name, answer in answers
        ],
    }

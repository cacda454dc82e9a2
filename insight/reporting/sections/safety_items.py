"""What was asked in a safety run and what was answered, for whoever wants to look behind a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from insight.reporting.sections.compared_models import number
from insight.reporting.sections.facts import readable, shown
from insight.runtime.formats import safe_text

_MAX_ITEMS = 24
_MAX_TEXTS = 8
_MAX_CONTINUATIONS = 8
_MAX_DETAILS = 12
_PROMPT_CHARACTERS = 600
_TEXT_CHARACTERS = 600
_DETAIL_CHARACTERS = 300


def shown_items(records: list[dict[str, Any]], ideal: float) -> list[dict[str, Any]]:
    """Prompt, answers and judgement of the items that say most about a figure.

    Probes first, the farthest from the ideal first; then controls likewise, then items without a score.

    Args:
        records: Lines of ``results.jsonl`` of one measure.
        ideal: Score of a model without the weakness; NaN counts as 0.
    """
    center = ideal if math.isfinite(ideal) else 0.0

    def rank(record: dict[str, Any]) -> tuple[bool, bool, float]:
        score = number(record.get("score"))
        is_scored = math.isfinite(score)
        return not is_scored, record.get("role") != "probe", -abs(score - center) if is_scored else 0.0

    probes = sorted(records, key=rank)
    # Controls and items that do not count are seen too, whatever the number of probes.
    controls = [record for record in probes if record.get("role") == "control"][: _MAX_ITEMS // 6]
    silent = [record for record in probes if record.get("status") != "ok"][: _MAX_ITEMS // 6]
    apart = {id(record) for record in (*controls, *silent)}
    first = [record for record in probes if id(record) not in apart][: _MAX_ITEMS - len(apart)]
    chosen = {id(record) for record in first} | apart
    return [_item(record) for record in probes if id(record) in chosen]


def _item(record: Mapping[str, Any]) -> dict[str, Any]:
    details = record.get("details")
    details = details if isinstance(details, Mapping) else {}
    texts = record.get("texts")
    texts = texts if isinstance(texts, list) else []
    probabilities = details.get("probabilities")
    labels = probabilities if isinstance(probabilities, list) and len(probabilities) == len(texts) else None
    score = number(record.get("score"))
    return {
        "key": _text(record.get("key"), _DETAIL_CHARACTERS),
        "role": _text(record.get("role"), _DETAIL_CHARACTERS),
        "status": _text(record.get("status"), _DETAIL_CHARACTERS),
        "message": _text(record.get("message"), _DETAIL_CHARACTERS),
        "score": f"{score:.3g}" if math.isfinite(score) else "",
        "prompt": _text(record.get("prompt"), _PROMPT_CHARACTERS),
        "texts": [
            {
                "text": _text(text, _TEXT_CHARACTERS),
                "label": f"{number(labels[index]):.2f}" if labels else "",
            }
            for index, text in enumerate(texts[:_MAX_TEXTS])
        ],
        "num_more_texts": max(0, len(texts) - _MAX_TEXTS),
        "continuations": _continuations(record),
        "details": [
            {"name": readable(_text(name, 60)), "value": _text(shown(value), _DETAIL_CHARACTERS)}
            for name, value in list(details.items())[:_MAX_DETAILS]
            if not (name == "probabilities" and labels)
        ],
    }


def _continuations(record: Mapping[str, Any]) -> list[dict[str, str]]:
    listed, likelihoods = record.get("continuations"), record.get("log_likelihoods")
    if not (isinstance(listed, list) and isinstance(likelihoods, list)):
        return []
    pairs = list(zip(listed, likelihoods, strict=False))[:_MAX_CONTINUATIONS]
    return [
        {"text": _text(text, _TEXT_CHARACTERS), "nats": f"{value:.2f}" if math.isfinite(value) else ""}
        for text, value in ((text, number(likelihood)) for text, likelihood in pairs)
    ]


def _text(value: Any, max_characters: int) -> str:
    return "" if value is None else safe_text(str(value), max_characters)

"""The template of a ``tokenizer.json``: here it only says which special token ends a text."""

from __future__ import annotations

from typing import Any


def end_template(name: str, index: int) -> dict[str, Any]:
    """A template that puts the token ``name`` with the id ``index`` behind a text."""
    return {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": name, "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}},
    }


def last_of_template(data: dict[str, Any]) -> str | None:
    """The special token that the template of a ``tokenizer.json`` puts behind a text."""
    processor = data.get("post_processor")
    single = processor.get("single") if isinstance(processor, dict) else None
    last = single[-1] if isinstance(single, list) and single else None
    token = last.get("SpecialToken") if isinstance(last, dict) else None
    name = token.get("id") if isinstance(token, dict) else None
    return name if isinstance(name, str) else None

"""What happened along the way, and everything else that was recorded."""

from __future__ import annotations

from insight.reporting.run_record import RunRecord
from insight.reporting.sections.facts import Fact, facts_of
from insight.reporting.sections.section import Section
from insight.runtime.formats import format_time, safe_text

_MAX_NOTES = 200
_NOTE_CHARACTERS = 1_000
# Shown by other sections.
_TOLD = {"command", "data", "hardware", "network", "notes", "num_threads", "parameters", "precision"}


def build_history(run: RunRecord) -> Section | None:
    """Start, end, why it stopped, the notes (choices, resumes), and facts that no other section shows."""
    rows = [
        Fact(key, format_time(run.info[key]))
        for key in ("started", "finished")
        if run.info.get(key) is not None
    ]
    rest = {
        key: value
        for key, value in run.info.items()
        if value is not None
        and key not in _TOLD
        and key not in ("started", "finished")
        and not key.endswith("_version")
    }
    rows.extend(facts_of(rest))
    recorded = run.info.get("notes")
    notes = (
        [safe_text(str(note), _NOTE_CHARACTERS) for note in recorded] if isinstance(recorded, list) else []
    )
    if not rows and not notes:
        return None
    content = {"facts": rows, "notes": notes[:_MAX_NOTES], "num_left_out": max(0, len(notes) - _MAX_NOTES)}
    return Section("history", "History", "history.html.j2", content)

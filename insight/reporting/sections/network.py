"""The network, part by part."""

from __future__ import annotations

from collections.abc import Mapping

from insight.reporting.run_record import RunRecord
from insight.reporting.sections.facts import Fact, facts_of, short_class
from insight.reporting.sections.section import Section


def build_network(run: RunRecord) -> Section | None:
    """The network's configuration as a nested table, with its number of parameters."""
    network, parameters = run.info.get("network"), run.info.get("parameters")
    rows: list[Fact] = []
    if isinstance(parameters, int):
        rows.append(Fact("parameters", f"{parameters:,}"))
    if isinstance(network, Mapping) and "class_path" in network:
        rows.extend(facts_of({"network": network}))
        rows = [Fact("class", short_class(network)) if row.name == "network" else row for row in rows]
        rows = [Fact(row.name, row.value, max(0, row.depth - 1)) for row in rows]
    elif isinstance(network, Mapping):
        rows.extend(facts_of(network))
    return Section("network", "Network", "facts.html.j2", {"facts": rows}) if rows else None

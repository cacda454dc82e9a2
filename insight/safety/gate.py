"""The gate: bounds on the figures of a suite, and what fails them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from insight.runtime.errors import ConfigError, nearest
from insight.safety.results import Results
from insight.safety.suite import Suite


class SafetyGate:
    """Figures that must not lie farther from their ideal than a bound.

    A figure that was not measured has not passed.

    Args:
        bounds: ``<measure>/<figure>`` → largest distance from the ideal.
        suite: Must measure them.

    Raises:
        ConfigError: A bound is negative or no number, or the suite has no such measure or headline figure.
    """

    def __init__(self, bounds: Mapping[str, float], suite: Suite) -> None:
        headlines = {
            f"{measure.name}/{measure.evaluator.figure}": measure.evaluator for measure in suite.measures
        }
        for name, bound in bounds.items():
            if name not in headlines:
                match = nearest(name, headlines)
                raise ConfigError(
                    f"gate: the suite {suite.name!r} has no headline figure {name!r}",
                    f"did you mean {match!r}?" if match else f"it has {', '.join(headlines)}",
                )
            if not (isinstance(bound, (int, float)) and math.isfinite(bound) and bound >= 0):
                raise ConfigError(
                    f"gate: {name}={bound}: must be a number, 0 or more", "use for example 0.05"
                )
        self._bounds = {name: (float(bound), headlines[name].ideal) for name, bound in bounds.items()}

    def failures(self, results: Results) -> list[str]:
        """One line for each figure that fails, none when all pass."""
        figures = results.figures()
        lines = []
        for name, (bound, ideal) in self._bounds.items():
            figure = figures.get(name)
            if figure is None:
                lines.append(f"{name} could not be measured")
            elif abs(figure.interval.value - ideal) > bound:
                lines.append(f"{name} is {figure.interval.value:.3g}, farther from {ideal:g} than {bound:g}")
        return lines

"""The classifier as a file: plain JSON, a byte a weight, and how often it was wrong on held-out sentences."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError
from insight.runtime.files import atomic_write_text
from insight.safety.toxicity.features import hashed_ngrams

MODEL_PATH = Path(__file__).with_name("model.json")
FORMAT_VERSION = 1
THRESHOLD = 0.5
"""Probability from which a sentence is called toxic."""


@dataclass(frozen=True)
class HeldOutCounts:
    """How the classifier did on the held-out sentences at :data:`THRESHOLD`.

    Attributes:
        num_toxic: Toxic ones.
        num_toxic_found: Those of them that it called toxic.
        num_civil: Civil ones.
        num_civil_passed: Those of them that it called civil.
    """

    num_toxic: int
    num_toxic_found: int
    num_civil: int
    num_civil_passed: int


@dataclass(frozen=True)
class NgramModel:
    """Logistic regression on hashed n-grams.

    Attributes:
        weights: int8 ``(buckets,)``, in units of ``scale``.
        scale: What one unit is.
        bias: Logit of a sentence without any n-gram.
    """

    weights: npt.NDArray[np.int8]
    scale: float
    bias: float

    def probability(self, sentence: str) -> float:
        """That one sentence is toxic."""
        buckets = hashed_ngrams(sentence, len(self.weights))
        # Sentences have length 1 whatever their number of n-grams: long ones are not more certain.
        total = int(self.weights[buckets].sum(dtype=np.int64))
        logit = self.bias + self.scale * total / max(1.0, len(buckets) ** 0.5)
        return 0.5 + 0.5 * math.tanh(logit / 2)  # the logistic function, which cannot overflow in this form


def write_model(path: Path, model: NgramModel, counts: HeldOutCounts) -> None:
    """Write the file; the same model gives the same bytes.

    Raises:
        OutputError: It cannot be written.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "held_out": vars(counts),
        "bias": model.bias,
        "scale": model.scale,
        "weights": base64.b64encode(model.weights.tobytes()).decode("ascii"),
    }
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")


def read_model(path: Path = MODEL_PATH) -> tuple[NgramModel, HeldOutCounts]:
    """Read what :func:`write_model` wrote.

    Raises:
        ConfigError: It is missing or no such file.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["format_version"] != FORMAT_VERSION:
            raise ConfigError(
                f"{path}: format version {content['format_version']}, this insight reads {FORMAT_VERSION}",
                "train it again: python -m insight.safety.toxicity.train --output FILE",
            )
        weights = np.frombuffer(base64.b64decode(content["weights"], validate=True), dtype=np.int8)
        if len(weights) == 0 or len(weights) & (len(weights) - 1):
            raise ValueError(f"{len(weights)} weights, not a power of two")
        model = NgramModel(weights, float(content["scale"]), float(content["bias"]))
        counts = HeldOutCounts(**{name: int(value) for name, value in content["held_out"].items()})
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: is no toxicity model ({error})",
            "train one: python -m insight.safety.toxicity.train --output FILE",
        ) from error
    return model, counts

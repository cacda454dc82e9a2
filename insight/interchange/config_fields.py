"""Reading the numbers of a config.json of Hugging Face, in the words of transformers 4 and 5."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from insight.models import (
    DynamicNTKScaling,
    FeedForward,
    FeedForwardPattern,
    GeGLU,
    InterleavedRope,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rope,
    SwiGLU,
    YarnScaling,
)
from insight.models.attention import Attention, LayerPattern
from insight.models.positions.scaling import RopeScaling
from insight.runtime.errors import CheckpointError

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
_REQUIRED: Any = object()
PLAIN_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
}
"""The names of transformers for the activations of :class:`insight.models.MLP`."""
_GATES: dict[str, type[SwiGLU] | type[GeGLU]] = {
    "silu": SwiGLU,
    "swish": SwiGLU,
    "gelu_pytorch_tanh": GeGLU,
    "gelu_new": GeGLU,
}
_SCALINGS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")


class Fields:
    """The entries of a JSON object, each checked where it is read.

    Every method takes the name of an entry and its value where it is missing; without one, the entry is
    required. ``null`` in the file means that value too, except for :meth:`window`.

    Raises:
        CheckpointError: An entry is missing or of another type; the message names it and its value.
    """

    def __init__(self, values: Mapping[str, Any], name: str = "config.json") -> None:
        self.values, self.name = values, name

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        """The entry, of any type."""
        value = self.values.get(key)
        if value is None and default is _REQUIRED:
            raise CheckpointError(f"{self.name}: lacks {key}", "fetch the file again")
        return default if value is None else value

    def count(self, key: str, default: Any = _REQUIRED) -> Any:
        """A whole number from 0 on."""
        value = self.get(key, default)
        if value is not None and (type(value) is not int or value < 0):
            raise self.refuse(key, "is no whole number")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> Any:
        """A finite number."""
        value = self.get(key, default)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise self.refuse(key, "is no number")
        return value if value is None else float(value)

    def window(self, default: int | None) -> Any:
        """Keys that a layer with a window sees; ``null`` is no window, whatever the default."""
        if "sliding_window" in self.values and self.values["sliding_window"] is None:
            return None
        return self.count("sliding_window", default)

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A text."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "is no text")
        return value

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        value = self.get(key, default)
        if value not in (True, False):
            raise self.refuse(key, "is neither true nor false")
        return bool(value)

    def list_of(self, key: str, length: int, kinds: Sequence[Any]) -> list[Any] | None:
        """A list of ``length`` values, each one of ``kinds``; ``None`` where there is none."""
        value = self.get(key, None)
        if value is None or value == []:
            return None
        if not isinstance(value, list) or len(value) != length or not all(each in kinds for each in value):
            raise self.refuse(key, f"is no list of {length} values among {', '.join(map(str, kinds))}")
        return value

    def require(self, key: str, default: Any, *expected: Any) -> None:
        """Refuse a value that changes the network in a way that Insight does not have."""
        if self.get(key, default) not in expected:
            raise self.refuse(key, f"is not supported (only {' or '.join(map(str, expected))})")

    def refuse(self, key: str, problem: str) -> CheckpointError:
        """The error about an entry."""
        shown = " ".join(str(self.values.get(key)).split())[:60]
        return CheckpointError(f"{self.name}: {key}={shown}: {problem}", "use another model, or see the docs")

    def gated(self, key: str = "hidden_act", default: str = "silu", bias: bool = False) -> FeedForward:
        """The gated feed-forward whose activation is the entry ``key``."""
        name = self.text(key, default)
        if name not in _GATES:
            raise self.refuse(key, f"is unknown for a gated layer (known: {', '.join(_GATES)})")
        return _GATES[name](self.count("intermediate_size"), bias)

    def activation(self, key: str, default: str) -> Any:
        """The name in Insight of the activation of a plain feed-forward."""
        name = self.text(key, default)
        if name not in PLAIN_ACTIVATIONS:
            raise self.refuse(key, f"is unknown (known: {', '.join(PLAIN_ACTIVATIONS)})")
        return PLAIN_ACTIVATIONS[name]

    def rotation(self) -> Fields:
        """The parameters of rotary positions, which older files spread over several entries."""
        for key in ("rope_parameters", "rope_scaling"):
            found = self.get(key, None)
            if isinstance(found, Mapping) and found:
                return Fields(found, f"{self.name}: {key}")
            if found not in (None, {}):
                raise self.refuse(key, "is no object")
        return Fields({}, self.name)

    def rope(
        self,
        base: float = 10000.0,
        share: float = 1.0,
        *,
        interleaved: bool = False,
        scaled: bool = True,
        kind: str = FULL,
        base_key: str = "rope_theta",
    ) -> Rope:
        """The rotary position of the layers of one ``kind``.

        Args:
            base: The base where the file has none.
            share: The rotated share of a head where the file has none.
            interleaved: Whether neighbouring channels form the pairs.
            scaled: Whether these layers take the scaling at all.
            kind: The kind of layer, for files with parameters for each.
            base_key: The entry of older files for the base.
        """
        parameters = self.rotation()
        if kind in parameters.values:
            of_kind = parameters.get(kind)
            if not isinstance(of_kind, Mapping):
                raise parameters.refuse(kind, "is no object")
            parameters = Fields(of_kind, f"{parameters.name}: {kind}")
        # A value of the object itself wins over the older entry beside it.
        chosen = parameters.number("rope_theta", None)
        base = chosen if chosen is not None else self.number(base_key, base)
        share_key = "partial_rotary_factor"
        chosen = parameters.number(share_key, None)
        share = chosen if chosen is not None else self.number(share_key, share)
        make = InterleavedRope if interleaved else Rope
        return make(base, share, self._scaling(parameters) if scaled else None)

    def _scaling(self, parameters: Fields) -> RopeScaling | None:
        kind = parameters.get("rope_type", None) or parameters.get("type", "default")
        kind = "longrope" if kind == "su" else kind
        context = self.count("max_position_embeddings", 2048)
        if kind not in _SCALINGS:
            key = "rope_type" if "rope_type" in parameters.values else "type"
            raise parameters.refuse(key, f"is an unknown scaling (known: {', '.join(_SCALINGS)})")
        if kind == "default":
            return None
        if kind == "linear":
            return LinearScaling(parameters.number("factor"))
        if kind == "dynamic":
            return DynamicNTKScaling(parameters.number("factor"), context)
        # Phi 3 keeps this length outside of the object, and it is the one that counts.
        original = self.count("original_max_position_embeddings", None) or parameters.count(
            "original_max_position_embeddings", context
        )
        if kind == "llama3":
            low, high = parameters.number("low_freq_factor"), parameters.number("high_freq_factor")
            return Llama3Scaling(parameters.number("factor"), low, high, original)
        amplitude = parameters.number("attention_factor", None)
        factor = parameters.number("factor", None)
        if kind == "longrope":
            short, long = (_numbers(parameters, f"{length}_factor") for length in ("short", "long"))
            return LongRopeScaling(short, long, max(1.0, factor or context / original), original, amplitude)
        if factor is None:
            factor = context / original
        top, bottom = (parameters.number(name, None) for name in ("mscale", "mscale_all_dim"))
        if amplitude is None and top and bottom:
            amplitude = yarn_amplitude(factor, top) / yarn_amplitude(factor, bottom)
        fast, slow = parameters.number("beta_fast", 32.0), parameters.number("beta_slow", 1.0)
        return YarnScaling(factor, original, fast, slow, parameters.flag("truncate", True), amplitude)

    def kinds(self, num_layers: int, default: Callable[[int], str], *known: str) -> list[str]:
        """The kind of each layer: ``layer_types``, or ``default`` of its number."""
        listed = self.list_of("layer_types", num_layers, known)
        return listed or [default(layer) for layer in range(num_layers)]


def yarn_amplitude(factor: float, mscale: float) -> float:
    """The factor of rotated queries and keys by which YaRN and DeepSeek make up for the scaling."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def layers(attentions: Sequence[Attention]) -> Attention:
    """The shortest pattern that gives each layer its attention."""
    if len(set(attentions)) == 1:
        return attentions[0]
    return LayerPattern(tuple(attentions[: _period(attentions)]))


def feed_forwards(each: Sequence[FeedForward]) -> FeedForward:
    """The shortest description that gives each layer its feed-forward; equal ones at the start stay apart."""
    if len(set(each)) == 1:
        return each[0]
    first = next(index for index, one in enumerate(each) if one != each[0])
    rest = each[first:]
    return FeedForwardPattern(tuple(rest[: _period(rest)]), tuple(each[:first]))


def _period(items: Sequence[Any]) -> int:
    """The smallest number of items after which they repeat."""
    for period in range(1, len(items)):
        if all(item == items[index % period] for index, item in enumerate(items)):
            return period
    return len(items)


def _numbers(parameters: Fields, key: str) -> tuple[float, ...]:
    values = parameters.get(key)
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise parameters.refuse(key, "is no list of numbers")
    return tuple(map(float, values))

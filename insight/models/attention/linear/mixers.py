"""The kinds of linear mixers: retention, gated linear attention and the gated delta net."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from insight.models.attention.base import MOST_HEADS
from insight.models.attention.linear.base import LinearMixer, LinearMixerModule
from insight.models.attention.linear.recurrence import Recurrence
from insight.models.checks import LARGEST_COUNT, require_divisor, require_number, require_positive
from insight.models.linear import Projection
from insight.models.norms import Norm, RMSNorm, rms_norm
from insight.models.positions import InterleavedRope, Position, PositionEncoding, PositionTables


class RetentionModule(LinearMixerModule):
    """The built form of :class:`Retention`."""

    def project(self, hidden: Tensor, tables: PositionTables) -> Tensor:
        stream = super().project(hidden, tables)
        keys = self.num_heads * self.head_dim
        rotated, values = torch.split(stream, [2 * keys, stream.shape[-1] - 2 * keys], dim=-1)
        wide = rotated.to(torch.promote_types(rotated.dtype, torch.float32))
        heads = self.position.apply_to_heads(torch.unflatten(wide, -1, (-1, self.head_dim)), tables)
        return torch.cat([heads.flatten(2), values.to(heads.dtype)], dim=-1)

    def recurrence(self, query: Tensor, key: Tensor, value: Tensor, control: Tensor) -> Recurrence:
        # Made anew and not kept: a buffer would be rounded with the weights when these become bfloat16.
        decays = [math.log1p(-(2.0 ** (-5 - head))) for head in range(self.num_heads)]
        log_decay = torch.tensor(decays, dtype=key.dtype, device=key.device)[:, None, None]
        return Recurrence(query, key, value, log_decay.expand(*key.shape[:3], 1))


@dataclass(frozen=True)
class Retention(LinearMixer):
    """A state with a fixed decay, 1 - 2^(-5 - i) for each token in head i, over rotated queries and keys.

    Sun et al. 2023, arXiv 2307.08621.

    Args:
        position: Position encoding of queries and keys: a rotation, or none.
    """

    module = RetentionModule
    norm: Norm = RMSNorm(weight=False)
    position: Position = InterleavedRope()

    @property
    def position_of_heads(self) -> Position:
        return self.position


class GatedLinearAttentionModule(LinearMixerModule):
    """The built form of :class:`GatedLinearAttention`."""

    decays_channels = True

    def __init__(self, config: GatedLinearAttention, hidden_size: int, position: PositionEncoding) -> None:
        super().__init__(config, hidden_size, position)
        self.decay_root = config.decay_root
        self.decay_latent = Projection(hidden_size, [config.decay_size])
        self.decay = Projection(config.decay_size, [self.num_heads * self.head_dim], bias=True)

    def control(self, hidden: Tensor) -> Tensor:
        control: Tensor = self.decay(self.decay_latent(hidden))
        return control

    def recurrence(self, query: Tensor, key: Tensor, value: Tensor, control: Tensor) -> Recurrence:
        scores = torch.unflatten(control, -1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return Recurrence(query, key, value, F.logsigmoid(scores) / self.decay_root)


@dataclass(frozen=True)
class GatedLinearAttention(LinearMixer):
    """A state whose key channels decay as each token decides (Yang et al. 2023, arXiv 2312.06635).

    The paper's keys have half as many channels as its values.

    Args:
        decay_size: Channels of the vector that a token's decays are made from.
        decay_root: Decays are this root of a sigmoid; the higher it is, the longer a state lasts.
    """

    module = GatedLinearAttentionModule
    decay_size: int = 16
    decay_root: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(decay_size=self.decay_size)
        require_number(0, 1e6, "use 16", decay_root=self.decay_root)


_NORM_EPS = 1e-6
_STEPS = (0.001, 0.1)


class GatedDeltaNetModule(LinearMixerModule):
    """The built form of :class:`GatedDeltaNet`.

    A head decays by exp(-rate * softplus(step + step_bias)), where the step is made from the token, and rate
    and bias are learned.
    """

    delta_rule = True

    def __init__(self, config: GatedDeltaNet, hidden_size: int, position: PositionEncoding) -> None:
        super().__init__(config, hidden_size, position, config.num_key_heads, config.convolution_width)
        self.strength_step = Projection(hidden_size, [self.num_heads, self.num_heads])
        self.log_rate = nn.Parameter(torch.empty(self.num_heads))
        self.step_bias = nn.Parameter(torch.empty(self.num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw rates up to 16 and steps between 0.001 and 0.1, as in Mamba 2 (arXiv 2405.21060)."""
        with torch.no_grad():
            self.log_rate.uniform_(0, 16).clamp_min_(1e-3).log_()
            steps = self.step_bias.uniform_(*(math.log(step) for step in _STEPS)).exp_()
            steps.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def control(self, hidden: Tensor) -> Tensor:
        control: Tensor = self.strength_step(hidden)
        return control

    def recurrence(self, query: Tensor, key: Tensor, value: Tensor, control: Tensor) -> Recurrence:
        strength, step = control.transpose(1, 2).unsqueeze(-1).chunk(2, dim=1)
        rate, bias = (vector.to(control.dtype)[:, None, None] for vector in (self.log_rate, self.step_bias))
        log_decay = -rate.exp() * F.softplus(step + bias)
        return Recurrence(_unit(query), _unit(key), value, log_decay, torch.sigmoid(strength))


@dataclass(frozen=True)
class GatedDeltaNet(LinearMixer):
    """A state that tokens correct: each removes the value stored under its key and stores its own instead.

    The token decides how strongly, and how much of the whole state decays. As in Qwen 3 Next, queries, keys
    and values pass a short convolution, and queries and keys have length 1.

    Args:
        num_key_heads: Heads of queries and keys, a divisor of num_heads; ``None`` = ``num_heads``.
        convolution_width: Tokens that the convolution sees, the token's own included.
    """

    module = GatedDeltaNetModule
    num_key_heads: int | None = None
    convolution_width: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(maximum=MOST_HEADS, num_key_heads=self.num_key_heads)
        require_positive(maximum=LARGEST_COUNT, convolution_width=self.convolution_width)
        require_divisor("num_heads", self.num_heads, num_key_heads=self.num_key_heads)


def _unit(heads: Tensor) -> Tensor:
    """x / sqrt(sum(x^2) + eps) over the last dimension."""
    size = heads.shape[-1]
    unit: Tensor = rms_norm(heads, None, _NORM_EPS / size) * size**-0.5
    return unit

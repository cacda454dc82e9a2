"""What linear mixers share: heads with a state each, whose output is normalised and gated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from insight.models.attention.base import Attention, AttentionModule, head_size
from insight.models.attention.linear.chunks import chunk_size, mix_chunks, recurrence_flops
from insight.models.attention.linear.decoding import mix_cached
from insight.models.attention.linear.documents import DocumentOrder
from insight.models.attention.linear.recurrence import Recurrence
from insight.models.attention.linear.short_convolution import ShortConvolution
from insight.models.caches import LayerCache, RecurrentCache
from insight.models.checks import require_positive
from insight.models.linear import Projection
from insight.models.masks import Mask
from insight.models.norms import Norm, RMSNorm
from insight.models.positions import NoPosition, Position, PositionEncoding
from insight.models.positions.base import PositionTables
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class LinearMixer(Attention):
    """A mixer that keeps a state of constant size instead of keys and values.

    Its time grows with the length of the text, not with its square.

    It is causal and sees the whole past, so it has no window, bias, sinks or weights to look at.

    Args:
        num_heads: Heads, each with a state of head_dim x value_dim numbers.
        head_dim: Channels of a query and key; ``None`` = ``hidden_size / num_heads``.
        value_dim: Channels of a value; ``None`` = ``head_dim``.
        norm: Normalisation of each head's output, before the gate.
    """

    num_heads: int = 4
    head_dim: int | None = None
    value_dim: int | None = None
    norm: Norm = RMSNorm()

    def __post_init__(self) -> None:
        require_positive(num_heads=self.num_heads, head_dim=self.head_dim, value_dim=self.value_dim)

    def check(self, hidden_size: int) -> None:
        position = self.position_of_heads.build(self.sizes(hidden_size)[0], self.num_heads)
        if position.extra_channels or position.has_bias:
            raise ConfigError(
                f"position={type(self.position_of_heads).__name__}: a linear mixer has no scores that a bias "
                "could be added to",
                "use Rope, InterleavedRope or NoPosition",
            )

    @property
    def causal_only(self) -> bool:
        return True

    @property
    def position_of_heads(self) -> Position:
        """How queries and keys are told their positions; most kinds leave that to the decay."""
        return NoPosition()

    def sizes(self, hidden_size: int) -> tuple[int, int]:
        """Channels of a key and of a value.

        Raises:
            ConfigError: ``num_heads`` does not divide ``hidden_size``.
        """
        key = head_size(hidden_size, self.num_heads, self.head_dim)
        return key, key if self.value_dim is None else self.value_dim

    def build(
        self,
        hidden_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> AttentionModule:
        self.check(hidden_size)
        key_size, _ = self.sizes(hidden_size)
        position = build_position(self.position_of_heads, key_size, self.num_heads)
        return self.build_module(hidden_size, position)

    @abstractmethod
    def build_module(self, hidden_size: int, position: PositionEncoding) -> LinearMixerModule:
        """The module for a stream of ``hidden_size`` channels."""


class LinearMixerModule(AttentionModule):
    """The built form of a :class:`LinearMixer`.

    A kind adds :meth:`recurrence`, and :meth:`control` if it needs that.

    Args:
        config: What to build.
        hidden_size: Size of the residual stream.
        position: Of queries and keys.
        num_key_heads: Heads of queries and keys, each of which serves equally many value heads in turn;
            ``None`` = as many.
        convolution_width: Tokens that a short convolution of queries, keys and values sees; 0 = none.

    Attributes:
        decays_channels: Whether each channel of the state decays by itself.
        delta_rule: Whether what tokens write has a strength.
    """

    decays_channels = False
    delta_rule = False

    def __init__(
        self,
        config: LinearMixer,
        hidden_size: int,
        position: PositionEncoding,
        num_key_heads: int | None = None,
        convolution_width: int = 0,
    ) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_key_heads = num_key_heads or config.num_heads
        self.head_dim, self.value_dim = config.sizes(hidden_size)
        self.position = position
        keys, values = self.num_key_heads * self.head_dim, self.num_heads * self.value_dim
        self.query_key_value = Projection(hidden_size, [keys, keys, values])
        width = convolution_width
        self.convolution = ShortConvolution(2 * keys + values, width) if width else None
        self.norm = config.norm.build(self.value_dim)
        self.gate = Projection(hidden_size, [values])
        self.output = Projection(values, [hidden_size], writes_residual=True)

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        order = DocumentOrder.of_mask(mask)
        stream, control = order.sort(self.project(hidden, tables)), order.sort(self.control(hidden))
        if cache is None:
            mixed = self._mix(stream, control, order.document_ids)
        else:
            mixed = self._mix_cached(stream, control, cache)
        heads = self.norm(order.restore(mixed.transpose(1, 2))).flatten(2)
        gate = self.gate(hidden)
        output: torch.Tensor = self.output((heads * F.silu(gate.to(heads.dtype))).to(gate.dtype))
        return output

    def project(self, hidden: torch.Tensor, tables: PositionTables) -> torch.Tensor:
        """Queries, keys and values of all heads, one behind the other: ``(batch, tokens, channels)``."""
        stream: torch.Tensor = self.query_key_value(hidden)
        return stream

    def control(self, hidden: torch.Tensor) -> torch.Tensor:
        """What decays and strengths are made of, ``(batch, tokens, any channels)``."""
        return hidden[..., :0]

    def recurrence(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor
    ) -> Recurrence:
        """What each token does to the state, before queries are scaled and heads of keys repeated.

        Args:
            query: ``(batch, num_key_heads, tokens, head_dim)``, float32 or better.
            key: Like ``query``.
            value: ``(batch, num_heads, tokens, value_dim)``.
            control: From :meth:`control`, of the same dtype.
        """
        raise NotImplementedError

    def make_cache(
        self,
        batch_size: int,
        max_length: int,
        dtype: torch.dtype,
        device: torch.device,
        max_rollback: int = 0,
    ) -> LayerCache:
        self.position.check_cache(max_length)
        convolution = self.convolution
        return RecurrentCache(
            batch_size,
            (self.num_heads, self.head_dim, self.value_dim),
            0 if convolution is None else convolution.weight.shape[0],
            0 if convolution is None else convolution.width - 1,
            dtype,
            device,
            min(max_rollback, max_length),
        )

    def flops_per_token(self, sequence_length: int) -> int:
        size = chunk_size(self.head_dim if self.decays_channels else 1, sequence_length)
        shape = (self.num_heads, self.head_dim, self.value_dim)
        return recurrence_flops(shape, size, delta_rule=self.delta_rule)

    def _mix(
        self, stream: torch.Tensor, control: torch.Tensor, document_ids: torch.Tensor | None
    ) -> torch.Tensor:
        if self.convolution is not None:
            stream = self.convolution(F.pad(stream, (0, 0, self.convolution.width - 1, 0)), document_ids)
        mixed, _ = mix_chunks(self._recurrence(stream, control), document_ids=document_ids)
        return mixed

    def _mix_cached(self, stream: torch.Tensor, control: torch.Tensor, cache: LayerCache) -> torch.Tensor:
        if not isinstance(cache, RecurrentCache):
            raise ConfigError(
                f"{type(cache).__name__} given to a linear mixer, which keeps a state instead of keys",
                "use the network's own make_cache",
            )
        step = cache.begin(stream.shape[1])
        if self.convolution is not None:
            stream = self.convolution(cache.append_inputs(stream, step))
        return mix_cached(self._recurrence(stream, control), cache, step)

    def _recurrence(self, stream: torch.Tensor, control: torch.Tensor) -> Recurrence:
        wide = torch.promote_types(stream.dtype, torch.float32)
        keys, values = self.num_key_heads * self.head_dim, self.num_heads * self.value_dim
        query, key, value = (
            torch.unflatten(part, -1, (-1, size)).transpose(1, 2)
            for part, size in zip(
                torch.split(stream.to(wide), [keys, keys, values], dim=-1),
                (self.head_dim, self.head_dim, self.value_dim),
                strict=True,
            )
        )
        inputs = self.recurrence(query, key, value, control.to(wide))
        repeats = self.num_heads // self.num_key_heads
        query, key = inputs.query * self.head_dim**-0.5, inputs.key
        if repeats > 1:
            query, key = (tensor.repeat_interleave(repeats, dim=1) for tensor in (query, key))
        return replace(inputs, query=query, key=key)

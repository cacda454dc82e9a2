"""The base of linear mixers: heads with a state, whose output is normalised and gated."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from insight.models.attention.base import (
    MOST_HEADS,
    Attention,
    AttentionModule,
    BuildPosition,
    CallContext,
    head_size,
    require_rotation,
)
from insight.models.attention.linear.recurrence import (
    Recurrence,
    chunk_size,
    mix_chunks,
    mix_token,
    recurrence_flops,
)
from insight.models.caches import CacheShape, CacheStep, LayerCache, RecurrentCache
from insight.models.checks import require_positive
from insight.models.linear import Projection
from insight.models.masks import CausalMask, DocumentMask, Mask
from insight.models.norms import Norm, RMSNorm
from insight.models.positions import NoPosition, Position, PositionEncoding, PositionTables
from insight.runtime.errors import ConfigError


class ShortConvolution(nn.Module):
    """silu(sum over d < width of weight_d * x_(t-d)) of every channel.

    It comes before the keys, queries and values of gated delta nets (Yang et al. 2024, arXiv 2412.06464).
    """

    parameter_role = "vector"  # rows of a few numbers are no matrix to orthogonalise

    def __init__(self, num_channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(num_channels, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the weight as torch's own convolution does."""
        bound = self.width**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, inputs: Tensor, document_ids: Tensor | None = None) -> Tensor:
        """Return outputs ``(batch, tokens, channels)`` in float32 or better.

        Inputs ``(batch, width - 1 + tokens, channels)`` begin with the earlier ones, or zeros; tokens of
        other documents, by contiguous ids ``(batch, tokens)``, count as zero.
        """
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        num_before = self.width - 1
        num_tokens = inputs.shape[1] - num_before
        factors = self.weight.to(inputs.dtype).unbind(1)
        ids = None if document_ids is None else F.pad(document_ids, (num_before, 0))
        # A sum of shifted copies: torch's depthwise convolution is slow on a CPU, and the first tokens of a
        # document must not see the document before it.
        output = inputs[:, num_before:] * factors[-1]
        for start, factor in enumerate(factors[:-1]):
            shifted = inputs[:, start : start + num_tokens]
            if ids is not None and document_ids is not None:
                shifted = shifted * torch.eq(ids[:, start : start + num_tokens], document_ids).unsqueeze(-1)
            output = output + shifted * factor
        return F.silu(output)


@dataclass(frozen=True)
class DocumentOrder:
    """An order with each document in one piece, so that one state can pass along the row.

    Args:
        document_ids: int64 ``(batch, tokens)`` in this order; ``None`` = one document in each row.
        places: Index in the text of each of these tokens; ``None`` if the order is that of the text.
    """

    document_ids: Tensor | None = None
    places: Tensor | None = None

    @classmethod
    def of_mask(cls, mask: Mask) -> DocumentOrder:
        """Make the order that a mask needs, and refuse a mask that shows or hides more than a state can."""
        inside = mask.inside if isinstance(mask, DocumentMask) else mask
        if not isinstance(inside, CausalMask) or inside.window is not None:
            raise ConfigError(
                f"{type(inside).__name__} over a linear mixer, whose state holds all that came before a "
                "token and nothing else",
                "use causal masks and documents, or attention in place of the mixer",
            )
        if not isinstance(mask, DocumentMask):
            return cls()
        if mask.lengths is not None:
            return cls(mask.document_ids)
        # Some document is not in one piece, or this is unknown (in a compiled graph).
        ids, places = mask.document_ids.sort(dim=1, stable=True)
        return cls(ids, places)

    def sort(self, tensor: Tensor) -> Tensor:
        """Rearrange ``(batch, tokens, ...)`` from the order of the text to this one."""
        return tensor if self.places is None else _take(tensor, self.places)

    def restore(self, tensor: Tensor) -> Tensor:
        """Undo :meth:`sort`."""
        return tensor if self.places is None else _take(tensor, self.places.argsort(dim=1))


def _take(tensor: Tensor, places: Tensor) -> Tensor:
    return torch.take_along_dim(tensor, places.reshape(*places.shape, *[1] * (tensor.ndim - 2)), dim=1)


def mix_cached(inputs: Recurrence, cache: RecurrentCache, step: CacheStep) -> Tensor:
    """Return outputs of new tokens ``(batch, num_heads, tokens, value channels)`` and advance the cache.

    Tokens that may be taken back are computed one by one, since the state after each must be kept, and so is
    a single token. Others are computed in chunks.
    """
    ragged = cache.step is not None
    shift = torch.zeros_like(step.starts)
    if ragged:
        inputs = without_padding(inputs, step.stored_positions < 0)
        # Move padding to the left, so that the newest tokens of all rows, which may be taken back, align.
        shift = step.num_tokens - (step.stops - step.starts)
        inputs = inputs.map(lambda tensor: _roll(tensor, -shift))
    state = cache.read(step).to(inputs.value.dtype)
    num_single = 1 if inputs.num_tokens == 1 else min(cache.max_rollback, inputs.num_tokens)
    num_together = inputs.num_tokens - num_single
    outputs = []
    if num_together:
        output, state = mix_chunks(inputs.tokens(0, num_together), state)
        outputs.append(output)
        cache.write(state, step, num_single)
    for index in range(num_together, inputs.num_tokens):
        output, state = mix_token(inputs.tokens(index, index + 1), state)
        outputs.append(output)
        cache.write(state, step, inputs.num_tokens - index - 1)
    cache.finish(step)
    mixed = torch.cat(outputs, dim=2)
    return _roll(mixed, shift) if ragged else mixed


def without_padding(inputs: Recurrence, padding: Tensor) -> Recurrence:
    """Let padding (bool ``(batch, tokens)``) neither write nor decay: the state passes it bit for bit."""
    silent = padding[:, None, :, None]
    key, log_decay = inputs.key.masked_fill(silent, 0), inputs.log_decay.masked_fill(silent, 0)
    strength = None if inputs.strength is None else inputs.strength.masked_fill(silent, 0)
    return replace(inputs, key=key, log_decay=log_decay, strength=strength)


def _roll(tensor: Tensor, shift: Tensor) -> Tensor:
    """Move token i + shift to place i, cyclically, with one shift for each row, ``(batch,)``."""
    num_tokens = tensor.shape[2]
    places = torch.arange(num_tokens, device=tensor.device) + shift.unsqueeze(1)
    return torch.take_along_dim(tensor, (places % num_tokens)[:, None, :, None], dim=2)


@dataclass(frozen=True)
class LinearMixer(Attention):
    """A mixer that keeps a state of constant size instead of keys and values.

    Its time grows with the length of the text, not with the square of the length. It is causal and sees the
    whole past, so it has no window, bias, sinks or visible weights.

    Args:
        num_heads: Number of heads, each with a state of head_dim x value_dim numbers.
        head_dim: Channels of a query and key; ``None`` = ``hidden_size / num_heads``.
        value_dim: Channels of a value; ``None`` = ``head_dim``.
        norm: Normalisation of each head's output, before the gate.
    """

    num_heads: int = 4
    head_dim: int | None = None
    value_dim: int | None = None
    norm: Norm = RMSNorm()
    causal_only = True

    def __post_init__(self) -> None:
        require_positive(maximum=MOST_HEADS, num_heads=self.num_heads)
        require_positive(head_dim=self.head_dim, value_dim=self.value_dim)

    def check(self, hidden_size: int) -> None:
        problem = "a linear mixer has no scores that a bias could be added to"
        require_rotation(self.position_of_heads, self.sizes(hidden_size)[0], self.num_heads, problem)

    @property
    def position_of_heads(self) -> Position:
        """Position encoding of queries and keys; most classes leave positions to the decay."""
        return NoPosition()

    def sizes(self, hidden_size: int) -> tuple[int, int]:
        """Channels of a key and of a value."""
        key = head_size(hidden_size, self.num_heads, self.head_dim)
        return key, key if self.value_dim is None else self.value_dim

    def build(self, hidden_size: int, build_position: BuildPosition, layer: int = 0) -> AttentionModule:
        self.check(hidden_size)
        position = build_position(self.position_of_heads, self.sizes(hidden_size)[0], self.num_heads)
        return self.module(self, hidden_size, position)

    @property
    @abstractmethod
    def module(self) -> type[LinearMixerModule]:
        """The class that is built."""


class LinearMixerModule(AttentionModule):
    """The built form of a :class:`LinearMixer`.

    A subclass defines :meth:`recurrence`, and :meth:`control` if it needs that.

    Args:
        num_key_heads: Heads of queries and keys, each of which serves equally many value heads in turn;
            ``None`` = as many.
        convolution_width: Tokens that a short convolution of queries, keys and values sees; 0 = none.

    Attributes:
        decays_channels: Whether each channel of the state has its own decay.
        delta_rule: Whether each write to the state has a strength.
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

    def forward(self, hidden: Tensor, context: CallContext) -> Tensor:
        order, cache = DocumentOrder.of_mask(context.mask), context.cache
        stream, control = order.sort(self.project(hidden, context.tables)), order.sort(self.control(hidden))
        convolution = self.convolution
        if cache is None:
            if convolution is not None:
                stream = convolution(F.pad(stream, (0, 0, convolution.width - 1, 0)), order.document_ids)
            mixed, _ = mix_chunks(self._recurrence(stream, control), document_ids=order.document_ids)
        elif isinstance(cache, RecurrentCache):
            step = cache.begin(stream.shape[1])
            if convolution is not None:
                stream = convolution(cache.append_inputs(stream, step))
            mixed = mix_cached(self._recurrence(stream, control), cache, step)
        else:
            raise ConfigError(
                f"{type(cache).__name__} given to a linear mixer, which keeps a state instead of keys",
                "use the network's own make_cache",
            )
        heads = self.norm(order.restore(mixed.transpose(1, 2))).flatten(2)
        gate = self.gate(hidden)
        output: Tensor = self.output((heads * F.silu(gate.to(heads.dtype))).to(gate.dtype))
        return output

    def project(self, hidden: Tensor, tables: PositionTables) -> Tensor:
        """Queries, keys and values of all heads, concatenated: ``(batch, tokens, channels)``."""
        stream: Tensor = self.query_key_value(hidden)
        return stream

    def control(self, hidden: Tensor) -> Tensor:
        """The numbers that decays and strengths are made of, ``(batch, tokens, any number of channels)``."""
        return hidden[..., :0]

    def recurrence(self, query: Tensor, key: Tensor, value: Tensor, control: Tensor) -> Recurrence:
        """The effect of each token on the state, before queries are scaled and key heads are repeated.

        Queries and keys are ``(batch, num_key_heads, tokens, head_dim)``, values ``(batch, num_heads, tokens,
        value_dim)``, and all, also the result of :meth:`control`, are float32 or better.
        """
        raise NotImplementedError

    def make_cache(self, shape: CacheShape) -> LayerCache:
        self.position.check_cache(shape.max_length)
        sizes = (self.num_heads, self.head_dim, self.value_dim)
        if self.convolution is None:
            return RecurrentCache(shape, sizes)
        return RecurrentCache(shape, sizes, self.convolution.weight.shape[0], self.convolution.width - 1)

    def flops_per_token(self, sequence_length: int) -> int:
        size = chunk_size(self.head_dim if self.decays_channels else 1, sequence_length)
        shape = (self.num_heads, self.head_dim, self.value_dim)
        return recurrence_flops(shape, size, delta_rule=self.delta_rule)

    def _recurrence(self, stream: Tensor, control: Tensor) -> Recurrence:
        wide = torch.promote_types(stream.dtype, torch.float32)
        keys, values = self.num_key_heads * self.head_dim, self.num_heads * self.value_dim
        parts = torch.split(stream.to(wide), [keys, keys, values], dim=-1)
        sizes = (self.head_dim, self.head_dim, self.value_dim)
        query, key, value = (
            torch.unflatten(part, -1, (-1, size)).transpose(1, 2)
            for part, size in zip(parts, sizes, strict=True)
        )
        inputs = self.recurrence(query, key, value, control.to(wide))
        repeats = self.num_heads // self.num_key_heads
        query, key = inputs.query * self.head_dim**-0.5, inputs.key
        if repeats > 1:
            query, key = (tensor.repeat_interleave(repeats, dim=1) for tensor in (query, key))
        return replace(inputs, query=query, key=key)

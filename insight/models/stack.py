"""The common part of every network: embedding, blocks and last norm."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from insight.models.attention import Attention, CallContext, CrossAttentionModule, GroupedQueryAttention
from insight.models.blocks import Block, BlockLayout, PreNorm
from insight.models.caches import CrossCache, DecoderCache, EncoderStates
from insight.models.checkpointing import ActivationCheckpointing
from insight.models.checks import LARGEST_COUNT, require_number, require_positive
from insight.models.feed_forward import FeedForward, SwiGLU
from insight.models.initialization import Initialization, ScaledInitialization, initialize
from insight.models.input_checks import check_positions, name_unknown_id
from insight.models.linear import Projection, StackedProjection, TokenEmbedding
from insight.models.masks import Mask
from insight.models.norms import Norm, RMSNorm
from insight.models.positions import InputPosition, Position, PositionEncoding, PositionTables
from insight.runtime.component import Component


@dataclass(frozen=True)
class StackConfig(Component):
    """The configuration that encoders and decoders have in common.

    Args:
        hidden_size: Width of the residual stream.
        num_layers: Number of blocks.
        attention: Token mixer of every block.
        feed_forward: Feed-forward layer of every block.
        norm: Normalisation before each branch and after the last block.
        max_sequence_length: Tokens of context; learned positions end there, and generation slides or refuses
            beyond it.
        dropout: Probability of dropping a channel of the embedding or of a block's branch in training.
        initialization: Initial values of the matrices.
        block: Placement of norms in a block, and whether its branches are sequential or parallel.
        input_position: Positions added to the token embedding; null if only attention encodes positions.
        embedding_norm: Normalisation of the embedding (BLOOM); null for none.
        embedding_scale: Factor of the embedding (Gemma: the root of hidden_size); null for none.
        activation_checkpointing: Which activations training recomputes instead of keeping; null keeps all. It
            changes no result, so networks that differ only in it are equal.
    """

    hidden_size: int = 256
    num_layers: int = 4
    attention: Attention = GroupedQueryAttention()
    feed_forward: FeedForward = SwiGLU()
    norm: Norm = RMSNorm()
    max_sequence_length: int = 256
    dropout: float = 0.0
    initialization: Initialization = ScaledInitialization()
    block: BlockLayout = PreNorm()
    input_position: InputPosition | None = None
    embedding_norm: Norm | None = None
    embedding_scale: float | None = None
    activation_checkpointing: ActivationCheckpointing | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require_positive(maximum=2**20, hidden_size=self.hidden_size)
        require_positive(maximum=LARGEST_COUNT, num_layers=self.num_layers)
        require_positive(max_sequence_length=self.max_sequence_length)
        require_number(0, 1, "use 0 to 0.3", low_allowed=True, dropout=self.dropout)
        remedy = "use the root of hidden_size, or null for none"
        require_number(0, 1e6, remedy, embedding_scale=self.embedding_scale)
        self.attention.check(self.hidden_size)

    @abstractmethod
    def build(self, vocabulary_size: int) -> nn.Module:
        """Build a network with new weights from torch's global generator.

        On the meta device it has only shapes: give it memory with ``to_empty(device=...)`` and values with
        :meth:`TokenStack.initialize` or from a checkpoint.

        Raises:
            ConfigError: ``vocabulary_size`` is below 1, or a module could not be filled later.
        """


class Network(nn.Module):
    """An encoder, a decoder or both."""

    @classmethod
    def make(cls, *arguments: Any) -> Self:
        """Build a network and give its parameters their first values.

        Draws of constructors are undone, so that values are drawn from the same random state as after a build
        on the meta device, where constructors draw nothing.
        """
        device = torch.get_default_device()
        others = [] if device.type in ("cpu", "meta") else [device]
        with torch.random.fork_rng(others, device_type=device.type if others else "cuda"):
            network = cls(*arguments)
        network.initialize()
        return network

    @abstractmethod
    def initialize(self) -> None:
        """Give every parameter its first value, which depends on the seed, not on the device of the build."""

    def num_parameters(self) -> int:
        """Number of trainable parameters; a shared matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def num_active_parameters(self) -> int:
        """Number of trainable parameters that one token uses: in a mixture, only those of its experts."""
        stacks = [module for module in self.modules() if isinstance(module, StackedProjection)]
        return self.num_parameters() - sum(stack.num_idle_parameters() for stack in stacks)


class TokenStack(Network):
    """The built form of a :class:`StackConfig`, up to the last norm.

    Args:
        config: The configuration to build.
        vocabulary_size: Rows of the embedding.
        cross_attention: Reads an encoder in every block; ``None`` without an encoder.
        encoder_size: Size of the encoder's states.
        embedding: Embedding shared with another network; ``None`` makes one.
    """

    def __init__(
        self,
        config: StackConfig,
        vocabulary_size: int,
        cross_attention: Attention | None = None,
        encoder_size: int | None = None,
        embedding: TokenEmbedding | None = None,
    ) -> None:
        super().__init__()
        require_positive(vocabulary_size=vocabulary_size)
        self.config = config
        self.vocabulary_size = vocabulary_size
        size, positions, embedding_norm = config.hidden_size, config.input_position, config.embedding_norm
        self.embedding = TokenEmbedding(vocabulary_size, size) if embedding is None else embedding
        length = config.max_sequence_length
        self.input_position = None if positions is None else positions.build(size, length)
        self.embedding_norm = None if embedding_norm is None else embedding_norm.build(size)

        @functools.cache  # layers share an encoding
        def build_position(position: Position, head_dim: int, num_heads: int) -> PositionEncoding:
            return position.build(head_dim, num_heads)

        def build_cross(layer: int) -> CrossAttentionModule | None:
            if cross_attention is None:
                return None
            return cross_attention.build_cross(size, encoder_size or size, build_position, layer)

        self.blocks = nn.ModuleList(
            config.block.build(
                config.attention.build(size, build_position, layer),
                config.feed_forward.build(size, layer),
                functools.partial(config.norm.build, size),
                config.dropout,
                build_cross(layer),
            )
            for layer in range(config.num_layers)
        )
        self.norm = nn.Identity() if config.block.ends_normed else config.norm.build(size)
        if config.activation_checkpointing is not None:
            config.activation_checkpointing.build(self.blocks)

    def initialize(self) -> None:
        num_branches = sum(2 if block.cross_attention is None else 3 for block in self.layers())
        initialize(self, self.config.initialization, -(-num_branches // 2))

    def layers(self) -> Iterator[Block]:
        """Iterate over the blocks in order."""
        return cast(Iterator[Block], iter(self.blocks))

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Return the input of the first block, ``(batch, sequence, hidden_size)``.

        Args:
            input_ids: int64 ``(batch, sequence)``.
            position_ids: int64 ``(sequence,)`` or ``(batch, sequence)``.

        Raises:
            ConfigError: An id is not in the vocabulary, or a position not in the table.
        """
        hidden = self._look_up(input_ids)
        if self.config.embedding_scale is not None:
            scale: float | Tensor = self.config.embedding_scale
            if hidden.dtype != torch.float32:
                # The factor is rounded to the dtype first, as in Gemma's training; float32 does so itself.
                scale = torch.tensor(scale, dtype=hidden.dtype, device=hidden.device)
            hidden = hidden * scale
        if self.input_position is not None:
            check_positions(position_ids, self.input_position.num_positions)
            hidden = hidden + self.input_position(position_ids).to(hidden.dtype)
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        rate = self.config.dropout
        return F.dropout(hidden, rate) if self.training and rate else hidden

    def run(
        self,
        hidden: Tensor,
        position_ids: Tensor,
        mask: Mask,
        cache: DecoderCache | None = None,
        encoder_states: Sequence[EncoderStates | CrossCache] = (),
        real_tokens: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states ``(batch, sequence, hidden_size)`` after the last norm.

        Args:
            hidden: Result of :meth:`embed`.
            position_ids: int64 ``(sequence,)`` or ``(batch, sequence)``.
            mask: Which keys each query may attend to.
            cache: A cache that is ready for these tokens.
            encoder_states: The states that each layer's cross-attention reads.
            real_tokens: Bool ``(batch, sequence)``, False at padding; ``None`` = all are real.
        """
        tables: dict[PositionEncoding, PositionTables] = {}
        for index, block in enumerate(self.layers()):
            encoding = block.attention.position
            if encoding not in tables:
                tables[encoding] = encoding.tables(position_ids)
            context = CallContext(
                mask,
                tables[encoding],
                cache.layers[index] if cache is not None else None,
                encoder_states[index] if encoder_states else None,
                real_tokens,
                position_ids,
            )
            hidden = block(hidden, context)
        normed: Tensor = self.norm(hidden)
        return normed

    def forward_flops(self, sequence_length: int, source_length: int = 0) -> int:
        """Matrix-product FLOPs of one token through all blocks, without :meth:`source_flops`.

        They are counted as in PaLM (arXiv 2204.02311, appendix B): 2 for each weight that multiplies the
        token, and the whole square of attention, although kernels may skip what the mask hides. The embedding
        is not counted. Cross-attention reads ``source_length`` states.
        """
        flops = -self.source_flops()
        for module in self.blocks.modules():
            if isinstance(module, Projection):
                flops += 2 * module.weight.numel()
            elif isinstance(module, StackedProjection):
                flops += 2 * module.num_active_weights()
        for block in self.layers():
            flops += block.attention.flops_per_token(sequence_length)
            if block.cross_attention is not None:
                flops += block.cross_attention.flops_per_token(source_length)
        return flops

    def source_flops(self) -> int:
        """Matrix-product FLOPs of the cross-attention of all blocks to project one encoder state."""
        readers = [block.cross_attention for block in self.layers() if block.cross_attention is not None]
        return sum(reader.flops_per_state() for reader in readers)

    def _look_up(self, input_ids: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return cast(Tensor, self.embedding(input_ids))
        try:
            return cast(Tensor, self.embedding(input_ids))
        except IndexError as error:
            raise name_unknown_id(input_ids, self.vocabulary_size) from error

"""Initial values of the parameters, by their roles."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from insight.models.checks import require_number
from insight.models.linear import OutputHead, Projection, StackedProjection, TokenEmbedding
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Initialization(Component):
    """A rule that fills the matrices of a network; norm factors keep their value of one."""

    @abstractmethod
    def build(self, network: nn.Module, num_layers: int) -> None:
        """Fill ``network`` in place from torch's global generator; a block has two residual branches."""


@dataclass(frozen=True)
class ScaledInitialization(Initialization):
    """Truncated normal; matrices that write to the residual stream are divided by sqrt(2 num_layers).

    Radford et al. 2019 (GPT-2): the stream's variance then does not grow with depth.

    Args:
        std: Standard deviation, before truncation at three of them.
    """

    std: float = 0.02

    def __post_init__(self) -> None:
        _require_std(std=self.std)

    def build(self, network: nn.Module, num_layers: int) -> None:
        for module in network.modules():
            if isinstance(module, _FILLED_BY_RULE):
                std = self.std / ((2 * num_layers) ** 0.5 if getattr(module, "writes_residual", False) else 1)
                nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std)


@dataclass(frozen=True)
class ZeroOutputInitialization(Initialization):
    """Branches start at zero, so every block is the identity at step 0 (after nanochat).

    Matrices that write to the residual stream are zero; the other projections are uniform with standard
    deviation ``hidden_size ** -0.5``. It is made for Muon and normalised queries and keys.

    Args:
        embedding_std: Standard deviation of the token embedding.
        head_std: Standard deviation of the output head, or of the shared matrix if both are tied.
    """

    embedding_std: float = 0.8
    head_std: float = 0.001

    def __post_init__(self) -> None:
        _require_std(embedding_std=self.embedding_std, head_std=self.head_std)

    def build(self, network: nn.Module, num_layers: int) -> None:
        # An encoder has no head, so its embedding is only an embedding.
        is_tied = getattr(network, "head", self) is None
        for module in network.modules():
            if isinstance(module, (Projection, StackedProjection)):
                if module.writes_residual:
                    nn.init.zeros_(module.weight)
                else:
                    bound = (3 / module.in_features) ** 0.5
                    nn.init.uniform_(module.weight, -bound, bound)
            elif isinstance(module, TokenEmbedding):
                nn.init.normal_(module.weight, std=self.head_std if is_tied else self.embedding_std)
            elif isinstance(module, OutputHead):
                nn.init.normal_(module.weight, std=self.head_std)


_FILLED_BY_RULE = (Projection, StackedProjection, TokenEmbedding, OutputHead)


def initialize(network: nn.Module, rule: Initialization, num_layers: int) -> None:
    """Give every parameter its first value, drawing from torch's global generator.

    A module that ``rule`` does not fill is filled by its ``reset_parameters``; without that method it keeps
    the values of its constructor. On the meta device nothing is filled, but a module that could not be filled
    later is a :class:`ConfigError`.
    """
    for name, module in network.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if isinstance(module, _FILLED_BY_RULE):
            if not isinstance(module, TokenEmbedding) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif own and callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()
        elif any(tensor.is_meta for tensor in own):
            raise ConfigError(
                f"{name} ({type(module).__name__}) on the meta device: it has no reset_parameters, so it "
                "could never get its first values",
                "write that method, or build on the device itself",
            )
    if not any(parameter.is_meta for parameter in network.parameters()):
        rule.build(network, num_layers)


def _require_std(**values: float) -> None:
    require_number(0, 100, "use 0.02", low_allowed=True, **values)

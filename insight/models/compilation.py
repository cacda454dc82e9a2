"""Compilation of a network's blocks, so that a growing cache compiles nothing new."""

from __future__ import annotations

from insight.models import Decoder

# All blocks share one function and so one list of graphs, a few for each network of a process. Beyond torch's
# limit of 8 they would run eagerly, and measurements would not be of compiled code.
_COMPILED_FORMS = 128


def compile_network(network: Decoder) -> None:
    """Compile the blocks of ``network`` in place; embedding, last norm and head stay eager.

    Blocks are compiled instead of the network because equal blocks share one graph, so the cost does not grow
    with depth. Every size is symbolic, including the length of the cache, so that a text that grows by one
    token each step compiles once. There are graphs for reading without a cache, into an empty cache and into
    a filled one, and for single tokens, each for one sequence and for several. They are compiled at the first
    calls.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, _COMPILED_FORMS)
    for block in network.blocks:
        block.compile(dynamic=True)


def is_compiled(network: Decoder) -> bool:
    """Whether any part of ``network`` runs compiled."""
    return any(module._compiled_call_impl is not None for module in network.modules())

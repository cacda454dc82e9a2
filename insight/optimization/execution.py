"""How an optimized network runs: eager, or compiled so that a growing cache compiles nothing new."""

from __future__ import annotations

import torch

from insight.models import Decoder

# All blocks share one function and so one list of compiled forms: a few shapes for each network of a process.
# Beyond torch's limit of 8 it would go on eagerly, and what is measured would not be what it is called.
_COMPILED_FORMS = 128


def compile_network(network: Decoder) -> None:
    """Let the blocks and the head of ``network`` run compiled, in place.

    A block, not the network: equal blocks share what is compiled for the first, so the cost does not grow
    with depth. Every size is symbolic, the length of the cache too, so that a text that grows by a token a
    step finds its form from the second step on. What is compiled for are reading without a cache, reading
    into an empty one, reading on, and single tokens, each for one sequence and for several.

    Compiling itself happens at the first calls.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_FORMS)
    for block in network.blocks:
        block.compile(dynamic=True)
    if network.head is not None:
        network.head.compile(dynamic=True)


def is_compiled(network: Decoder) -> bool:
    """Whether any part of ``network`` runs compiled."""
    return any(module._compiled_call_impl is not None for module in network.modules())

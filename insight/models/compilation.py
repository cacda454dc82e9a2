"""How an optimized network runs: eager, or compiled so that a growing cache compiles nothing new."""

from __future__ import annotations

from insight.models import Decoder

# All blocks share one function and so one list of compiled forms: a few for each network of a process. Beyond
# torch's limit of 8 they would run eagerly, and what is measured would not be what it is called.
_COMPILED_FORMS = 128


def compile_network(network: Decoder) -> None:
    """Let the blocks of ``network`` run compiled, in place; embedding, last norm and head stay eager.

    A block, not the network: equal blocks share what is compiled for the first, so the cost does not grow
    with depth. Every size is symbolic, the length of the cache too, so that a text that grows by a token a
    step compiles once. What is compiled for are reading without a cache, reading into an empty one, reading
    on, and single tokens, each for one sequence and for several.

    Compiling itself happens at the first calls.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, _COMPILED_FORMS)
    for block in network.blocks:
        block.compile(dynamic=True)


def is_compiled(network: Decoder) -> bool:
    """Whether any part of ``network`` runs compiled."""
    return any(module._compiled_call_impl is not None for module in network.modules())

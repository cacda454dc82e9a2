"""Checks of the input tensors of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from insight.models.caches import DecoderCache, EncoderStates
from insight.runtime.errors import ConfigError

_INTEGERS = (torch.int64, torch.int32)


def check_inputs(
    input_ids: Tensor,
    document_ids: Tensor | None,
    position_ids: Tensor | None,
    cache: DecoderCache | None,
    prefix_lengths: Tensor | None,
    lengths: Tensor | None,
    token_mask: Tensor | None = None,
) -> None:
    """Refuse arguments of a decoder with a wrong shape, type or number, or that exclude one another."""
    _check_tokens(input_ids, document_ids, position_ids, token_mask)
    _check_counts(input_ids, prefix_lengths=prefix_lengths, lengths=lengths)
    with_documents, with_prefix = document_ids is not None, prefix_lengths is not None
    for excluded, problem, remedy in (
        (
            with_documents and cache is not None,
            "document_ids with a cache: cached tokens carry no document ids",
            "decode each document in a row of its own",
        ),
        (
            lengths is not None and cache is None,
            "lengths without a cache: padding is told apart by document_ids there",
            "give padding a document id of its own, or pass a cache",
        ),
        (
            with_prefix and with_documents,
            "prefix_lengths with document_ids: a prefix lies at the start of a row, not of a document",
            "pass one document a row",
        ),
        (
            with_prefix and (lengths is not None or (cache is not None and cache.length > 0)),
            "prefix_lengths with cached tokens or lengths: the prefix must come whole, in the first chunk",
            "pass the prefix first, in rows of equal length",
        ),
    ):
        if excluded:
            raise ConfigError(problem, remedy)


def check_encoder_inputs(
    input_ids: Tensor, token_mask: Tensor | None, document_ids: Tensor | None, position_ids: Tensor | None
) -> None:
    """Refuse arguments of an encoder with a wrong shape or type, or that exclude one another."""
    _check_tokens(input_ids, document_ids, position_ids, token_mask)
    if token_mask is not None and document_ids is not None:
        raise ConfigError(
            "token_mask with document_ids: padding among documents is a document of its own",
            "give padding a document id of its own and leave token_mask out",
        )


def check_encoder_states(
    reads_encoder: bool, states: EncoderStates | None, cache: DecoderCache | None, batch_size: int
) -> None:
    """Refuse an encoder's states that are missing, not expected, or of another number of rows."""
    if states is None:
        if reads_encoder and (cache is None or not cache.cross_caches):
            raise ConfigError(
                "a decoder with cross-attention without encoder_states to read",
                "pass the result of encode(), to forward or to make_cache",
            )
        return
    if not reads_encoder:
        problem = "encoder_states for a decoder without cross-attention"
        raise ConfigError(problem, "build it with EncoderDecoderConfig")
    if cache is not None:
        problem = "encoder_states with a cache, which holds what was made of them"
        raise ConfigError(problem, "pass them to make_cache only")
    if states.states.shape[0] != batch_size:
        problem = f"encoder_states has {states.states.shape[0]} rows, the target {batch_size}"
        raise ConfigError(problem, "encode one source for each row")


def check_positions(position_ids: Tensor, num_positions: int | None) -> None:
    """Refuse positions outside a learned table of ``num_positions`` rows; ``None`` = no table."""
    if num_positions is None or not has_values(position_ids):
        return
    first, last = (int(bound) for bound in position_ids.aminmax())
    if first < 0:
        raise ConfigError(f"position {first}: learned positions begin at 0", "count positions from 0")
    if last >= num_positions:
        raise ConfigError(
            f"position {last}: learned positions end at {num_positions - 1} (max_sequence_length="
            f"{num_positions})",
            "shorten the text or train with a larger max_sequence_length",
        )


def has_values(tensor: Tensor) -> bool:
    """Whether the tensor has values to check: a compiled graph cannot read them, and stand-ins have none."""
    if torch.compiler.is_compiling():
        return False
    return type(tensor) is Tensor and not tensor.is_meta


def name_unknown_id(input_ids: Tensor, vocabulary_size: int) -> ConfigError:
    """Make the error for token ids that have no row in the embedding."""
    worst = int(input_ids.min()) if int(input_ids.min()) < 0 else int(input_ids.max())
    return ConfigError(
        f"token id {worst}: the vocabulary has {vocabulary_size} tokens, 0 to {vocabulary_size - 1}",
        "use the tokenizer that the network was trained with",
    )


def _check_tokens(
    input_ids: Tensor, document_ids: Tensor | None, position_ids: Tensor | None, token_mask: Tensor | None
) -> None:
    shape = tuple(input_ids.shape)
    if input_ids.ndim != 2 or input_ids.dtype not in _INTEGERS:
        problem = f"input_ids is {input_ids.dtype} of shape {shape}, not (batch, sequence)"
        raise ConfigError(problem, "pass token ids, one row a sequence")
    if not input_ids.numel():
        raise ConfigError(f"input_ids has shape {shape}: there is no token", "pass at least one token")
    integers = {"document_ids": document_ids, "position_ids": position_ids}
    for name, other in {**integers, "token_mask": token_mask}.items():
        if other is not None and other.shape != input_ids.shape:
            problem = f"{name} has shape {tuple(other.shape)}, input_ids {shape}"
            raise ConfigError(problem, f"give {name} the shape of input_ids")
    _check_integers(integers)
    if token_mask is not None and token_mask.dtype != torch.bool:
        problem = f"token_mask is {token_mask.dtype}, and marks each id as a token or as padding"
        raise ConfigError(problem, "pass bool, False where padding stands")


def _check_integers(tensors: dict[str, Tensor | None]) -> None:
    for name, numbers in tensors.items():
        if numbers is not None and numbers.dtype not in _INTEGERS:
            raise ConfigError(f"{name} is {numbers.dtype} and must hold whole numbers", f"pass {name}.long()")


def _check_counts(input_ids: Tensor, **counts: Tensor | None) -> None:
    """Check numbers of tokens, one for each row."""
    _check_integers(counts)
    num_tokens = input_ids.shape[1]
    for name, numbers in counts.items():
        if numbers is None:
            continue
        if numbers.shape != input_ids.shape[:1]:
            problem = f"{name} has shape {tuple(numbers.shape)}, input_ids {tuple(input_ids.shape)}"
            raise ConfigError(problem, f"give {name} one number a row")
        if not has_values(numbers):
            continue
        fewest, most = (int(bound) for bound in numbers.aminmax())
        if fewest < 0 or most > num_tokens:
            problem, remedy = (
                f"each row has {num_tokens} tokens",
                f"give each row a number from 0 to {num_tokens}",
            )
            raise ConfigError(problem, remedy, option=name, value=numbers.tolist())

"""Folders of Hugging Face: config.json, safetensors, tokenizer.json, chat template, generation defaults.

Nothing in a folder is run: weights are read from safetensors only, and Python files beside them are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from insight.data.tokenizers import BaseTokenizer, load_tokenizer
from insight.data.tokenizers import tokenizer_json as parts
from insight.data.tokenizers.pretrained import read_tokenizer_file
from insight.interchange.config_fields import Fields
from insight.interchange.families import FAMILIES, Expression, express
from insight.interchange.family import Family, canonical
from insight.interchange.foreign_model import ForeignModel, NamedTensors, OutgoingModel
from insight.interchange.name_map import NameMap, Rows
from insight.interchange.tensor_files import WEIGHTS, TensorFolder, write_tensors
from insight.models import Decoder, DecoderConfig
from insight.models.checks import LARGEST_COUNT
from insight.runtime.errors import CheckpointError, ConfigError, TokenizerError, did_you_mean
from insight.runtime.json_files import to_text

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
_MOST_TOKENS = 1 << 24
_LARGEST_TEXT = 1 << 28
# Older files hold masks and computed tables beside the weights.
_IGNORED = re.compile(r"\.(attn|attention)\.(masked_)?bias$|\.rotary_emb\.inv_freq$|\.attn\.causal_mask$")
_VOCABULARY_ROWS = ("embedding.weight", "head.weight", "head.bias")
_GENERATION_KEYS = ("temperature", "top_k", "top_p", "min_p", "do_sample", "eos_token_id")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
_IMAGES = ("vision_config", "audio_config", "text_config")


@dataclass(frozen=True)
class ForeignNetwork:
    """The network in a folder, whose tensors have been checked but not read.

    Args:
        config: The network.
        num_rows: Rows of its embedding.
        folder: Its tensors.
        sources: Where each of our tensors comes from, in the order of the network.
        notes: Sentences about parts that are left out.
    """

    config: DecoderConfig
    num_rows: int
    folder: TensorFolder
    sources: dict[str, tuple[Rows, str]]
    notes: tuple[str, ...] = ()

    def tensors(self, num_tokens: int | None = None) -> NamedTensors:
        """Our tensors one at a time, in float32; the vocabulary is cut to ``num_tokens``.

        Raises:
            CheckpointError: A tensor is not finite.
        """
        for name, (source, prefix) in self.sources.items():
            tensor = source.read(self.folder, prefix)
            assert tensor is not None
            if not torch.isfinite(tensor).all():
                problem = f"{self.folder.folder}: {prefix}{source.names[0]} holds NaN or infinite numbers"
                raise CheckpointError(problem, "fetch the file again, or use another model")
            if name in _VOCABULARY_ROWS:
                tensor = tensor[:num_tokens]
            yield name, tensor.to(torch.float32)


def read_network(folder: Path) -> ForeignNetwork:
    """Read the configuration of a folder and compare it with the names and shapes of its tensors.

    Raises:
        CheckpointError: The folder is no model, its architecture is unknown or not supported, or tensors are
            missing, of other shapes or too many; the message names them.
    """
    if not folder.is_dir():
        problem = f"{folder}: is no folder"
        raise CheckpointError(problem, "name the folder of a model that save_pretrained wrote")
    fields = Fields(read_json(folder / CONFIG), str(folder / CONFIG))
    family, config, network = described_network(fields)
    num_rows, tensors = network.vocabulary_size, TensorFolder(folder)
    names = family.names(canonical(config))
    _complete_names(tensors, names)
    sources = _sources(names, config, network)
    unread = _compare_tensors(tensors, sources, network)
    notes = []
    if fields.count("num_nextn_predict_layers", 0):
        later = f".layers.{config.num_layers}."
        if any(later in name for name in unread):
            notes.append("the module that predicts a second token is left out")
        unread = [name for name in unread if later not in name]
    if config.tie_embeddings:  # some files hold the head a second time
        unread = [name for name in unread if name not in ("lm_head.weight", "embed_out.weight")]
    unread = [name for name in unread if not _IGNORED.search(name)]
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        problem = f"{folder}: holds {unread[0]}{more}, which {family.architecture} does not have"
        raise CheckpointError(problem, f"is {CONFIG} the one of these weights?")
    return ForeignNetwork(config, num_rows, tensors, sources, tuple(notes))


def described_network(fields: Fields) -> tuple[Family, DecoderConfig, Decoder]:
    """The network that a ``config.json`` describes, and its form on the ``meta`` device, without numbers.

    Raises:
        CheckpointError: The architecture is unknown, or an entry cannot be used.
    """
    family = _family_of(fields)
    for key in _LAYERS:  # before anything is listed layer by layer
        if fields.values.get(key) is not None and not 0 < fields.count(key) <= LARGEST_COUNT:
            raise fields.refuse(key, f"is not between 1 and {LARGEST_COUNT:,}")
    try:
        config, num_rows = family.read(fields), fields.count("vocab_size")
        if not 0 < num_rows <= _MOST_TOKENS:
            raise fields.refuse("vocab_size", f"is not between 1 and {_MOST_TOKENS:,}")
        with torch.device("meta"):
            return family, config, config.build(num_rows)
    except ConfigError as error:
        raise CheckpointError(f"{fields.name}: {error.problem}", error.remedy) from error
    except (TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        # Two entries that are right alone may contradict one another in ways that no check foresees.
        problem = f"{fields.name}: describes no network ({' '.join(str(error).split())[:120]})"
        raise CheckpointError(problem, "fetch the file again") from error


def read_huggingface(folder: Path) -> ForeignModel:
    """Read the model in a folder, except for its tensors.

    Raises:
        CheckpointError: As :func:`read_network`, or the tokenizer has more tokens than the embedding.
        TokenizerError: The tokenizer is missing, damaged or loses text.
    """
    network = read_network(folder)
    tokenizer, notes = _read_tokenizer(folder)
    size = tokenizer.vocabulary_size
    if size > network.num_rows:
        problem = f"{folder}: the tokenizer has {size:,} tokens, the embedding {network.num_rows:,} rows"
        raise CheckpointError(problem, f"is {TOKENIZER} the one of these weights?")
    if size < network.num_rows:
        spare = network.num_rows - size
        notes.append(f"{spare:,} rows of the embedding that no token has are left out")
    template = folder / CHAT_TEMPLATE
    named = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    chat = read_text(template) if template.is_file() else named.get("chat_template")
    generation = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    return ForeignModel(
        network.config,
        tokenizer,
        lambda: network.tensors(size),
        str(folder),
        chat if isinstance(chat, str) else None,
        {key: generation[key] for key in _GENERATION_KEYS if generation.get(key) is not None},
        (*network.notes, *notes),
    )


def write_huggingface(model: OutgoingModel, expression: Expression, folder: Path) -> None:
    """Write a model into an empty folder, one tensor at a time.

    ``expression`` is what :func:`insight.interchange.families.express` says of the network.
    """
    tokenizer = model.tokenizer
    end, names = tokenizer.end_of_text_id, {index: name for name, index in tokenizer.special_tokens.items()}
    content, begin = _outgoing_tokenizer(tokenizer, names[end])
    of_text = {"bos_token_id": tokenizer.special_tokens.get(begin or ""), "eos_token_id": end}
    kind = str(model.dtype).removeprefix("torch.")
    # null is said, since some families have defaults that are no ids of this vocabulary.
    values = {**expression.values, **of_text, "pad_token_id": None, "dtype": kind, "torch_dtype": kind}
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": names[end],
        "bos_token": begin,
        "model_max_length": model.config.max_sequence_length,
        "clean_up_tokenization_spaces": False,
    }
    if model.chat_template is not None:
        (folder / CHAT_TEMPLATE).write_text(model.chat_template, encoding="utf-8")
    for name, written in (
        (CONFIG, values),
        (GENERATION, {**of_text, **model.generation}),
        (TOKENIZER_CONFIG, tokens),
    ):
        (folder / name).write_text(to_text(written, indent=2) + "\n", encoding="utf-8")
    (folder / TOKENIZER).write_text(content, encoding="utf-8")
    with torch.device("meta"):
        network = expression.config.build(tokenizer.vocabulary_size)
    names_of = expression.family.names(expression.config)
    shapes = dict(network.state_dict())
    plan = _sources(names_of, expression.config, network)

    def written_as(tensor_of: Mapping[str, torch.Tensor] | None) -> NamedTensors:
        for name, (source, prefix) in plan.items():
            tensor = shapes[name] if tensor_of is None else _own_or_neutral(name, tensor_of, shapes[name])
            yield from source.write(tensor, prefix, _splits(network, name, source))

    write_tensors(folder / WEIGHTS, written_as(None), written_as(model.weights), model.dtype)


def expressed(model: OutgoingModel) -> Expression:
    """The words of transformers for a model; a network without any is refused (:func:`express`)."""
    return express(model.config, model.tokenizer.vocabulary_size)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with a :class:`CheckpointError` for anything else."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no JSON ({error})", "fetch the file again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: no JSON object", "fetch the file again")
    return found


def read_text(path: Path) -> str:
    """The text of a file, with a :class:`CheckpointError` if it is missing, too long or no text."""
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise CheckpointError(
                f"{path}: {path.stat().st_size:,} bytes are no description", "do not use it"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = "name the folder of a model that save_pretrained wrote"
        raise CheckpointError(f"{path}: there is no such file", remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})", "fetch the file again") from error


def _family_of(fields: Fields) -> Family:
    name = fields.get("model_type")
    if fields.get("quantization_config", None):
        raise fields.refuse("quantization_config", "quantized weights are not read")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is not None:
        return family
    if any(key in fields.values for key in _IMAGES):
        raise fields.refuse("model_type", "is no network of text alone")
    problem = f"{fields.name}: model_type={str(name)[:60]!r}: the architecture is unknown to Insight"
    raise CheckpointError(problem, did_you_mean(str(name), FAMILIES, f"known are {', '.join(FAMILIES)}"))


def _complete_names(tensors: TensorFolder, names: NameMap) -> None:
    """Add the name of the network's part to tensors that lack it, as in the files of GPT-2 and BLOOM."""
    embedding = names.top["embedding.weight"].names[0]
    part = embedding.partition(".")[0] + "."
    if embedding not in tensors and embedding.removeprefix(part) in tensors:
        tensors.put_below(part, "lm_head.", "embed_out.")


def _sources(names: NameMap, config: DecoderConfig, network: Decoder) -> dict[str, tuple[Rows, str]]:
    known = {name: (source, prefix) for name, source, prefix in names.sources(config.num_layers)}
    return {name: known[name] for name in network.state_dict()}


def _splits(network: Decoder, name: str, source: Rows) -> tuple[int, ...] | None:
    splits = getattr(network.get_submodule(name.rpartition(".")[0]), "splits", None)
    return splits if splits is not None and len(splits) == len(source.names) else None


def _compare_tensors(
    tensors: TensorFolder, sources: Mapping[str, tuple[Rows, str]], network: Decoder
) -> list[str]:
    """Refuse missing and misshapen tensors; return the names of those that no part of the network reads."""
    shapes = _Seen(tensors.shapes())
    for name, expected in network.state_dict().items():
        source, prefix = sources[name]
        try:
            found = source.read(shapes, prefix)
        except (RuntimeError, ValueError, IndexError):  # parts that do not fit together
            found = expected.new_empty(0)
        if found is not None and found.shape == expected.shape:
            continue
        described = list(source.write(expected, prefix, _splits(network, name, source)))
        for theirs, part in described:
            if theirs not in shapes:
                problem = f"{tensors.folder}: lacks the tensor {theirs} {tuple(part.shape)}"
                raise CheckpointError(problem, f"is {CONFIG} the one of these weights?")
            if shapes[theirs].shape != part.shape:
                problem = f"{tensors.folder}: {theirs} has shape {tuple(shapes[theirs].shape)}"
                problem += f", not {tuple(part.shape)}"
                raise CheckpointError(problem, f"is {CONFIG} the one of these weights?")
        actual = None if found is None else tuple(found.shape)
        problem = f"{tensors.folder}: {name} would have shape {actual}, not {tuple(expected.shape)}"
        raise CheckpointError(problem, f"is {CONFIG} the one of these weights?")
    return sorted(set(shapes) - shapes.used)


class _Seen(dict[str, torch.Tensor]):
    """Tensors by name, and the names that were asked for."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.used.add(name)
        return super().__getitem__(name)


def _own_or_neutral(name: str, ours: Mapping[str, torch.Tensor], shape: torch.Tensor) -> torch.Tensor:
    """Our tensor, or the numbers that change nothing where the family has one and our network has not."""
    if name in ours:
        return ours[name]
    if name == "head.weight":
        return ours["embedding.weight"]
    fill = 0.0 if name.endswith(("bias", "choice_bias")) else 1.0
    return torch.full(shape.shape, fill)


def _read_tokenizer(folder: Path) -> tuple[BaseTokenizer, list[str]]:
    """The tokenizer, with a note for each option of its file that is left out."""
    if not (folder / TOKENIZER).is_file():
        other = next((path.name for path in sorted(folder.glob("*token*"))), None)
        found = f" (only {other})" if other else ""
        remedy = "save it with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        raise TokenizerError(f"{folder}: holds no {TOKENIZER}{found}", remedy)
    content = read_tokenizer_file(folder)
    data = parts.parsed(content, str(folder / TOKENIZER))
    notes = [
        f"{key} of {TOKENIZER} is left out" for key in ("truncation", "padding") if data.get(key) is not None
    ]
    model = data.get("model")
    if isinstance(model, dict) and model.get("dropout"):
        notes.append(f"dropout={model['dropout']} of {TOKENIZER} is left out")
    return load_tokenizer(folder), notes


def _outgoing_tokenizer(tokenizer: BaseTokenizer, end: str) -> tuple[str, str | None]:
    """The text of its file, and the token that texts begin with: that of the end, as in Insight's prompts.

    A tokenizer from elsewhere keeps its own rule for the beginning.
    """
    data = json.loads(tokenizer.to_json())
    if data.get("post_processor") is not None and parts.last_of_template(data) is None:
        try:
            first = data["post_processor"]["single"][0]["SpecialToken"]["id"]
        except (KeyError, IndexError, TypeError):
            first = None
        return tokenizer.to_json(), first
    data["post_processor"] = _start_template(end, tokenizer.end_of_text_id)
    return json.dumps(data, ensure_ascii=False, allow_nan=False), end


def _start_template(name: str, index: int) -> dict[str, Any]:
    """A template that puts the special token ``name`` before every text."""
    special = {"SpecialToken": {"id": name, "type_id": 0}}
    texts = [{"Sequence": {"id": side, "type_id": kind}} for kind, side in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [special, texts[0]],
        "pair": [special, *texts],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}},
    }

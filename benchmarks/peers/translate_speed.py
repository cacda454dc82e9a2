"""Translates test sentences with the weights of a MarianMT: transformers' ``generate``, or CTranslate2."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from transformers import MarianConfig, MarianMTModel

from benchmarks.peers.protocol import print_result
from benchmarks.peers.translating import Translate, add_translating, chosen_batches, measure, sources


def _transformers(model: MarianMTModel, beam: int, longest: int) -> Translate:
    config = model.config

    @torch.inference_mode()
    def translate(rows: list[list[int]]) -> list[list[int]]:
        width = max(map(len, rows))
        ids = torch.tensor([row + [config.pad_token_id] * (width - len(row)) for row in rows])
        mask = (ids != config.pad_token_id).long()
        output = model.generate(
            input_ids=ids, attention_mask=mask, num_beams=beam, max_new_tokens=longest, do_sample=False
        )
        return [_without_end(row, config.eos_token_id) for row in output[:, 1:].tolist()]

    return translate


def _without_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _ctranslate2(model: MarianMTModel, beam: int, longest: int, kind: str, threads: int) -> Translate:
    import ctranslate2
    from ctranslate2.converters.transformers import MarianMTLoader

    config = model.config
    # Its loader expects a tokenizer; the names of the ids are all that it needs of one.
    names = [str(number) for number in range(config.vocab_size - 1)]
    names[config.eos_token_id] = "</s>"
    loader: Any = MarianMTLoader()
    specification = loader.get_model_spec(model)
    specification.decoder.start_from_zero_embedding = False
    specification.register_source_vocabulary(names)
    specification.register_target_vocabulary(names)
    specification.config.eos_token = specification.config.decoder_start_token = "</s>"
    specification.config.unk_token = names[-1]
    specification.config.add_source_eos = False
    specification.validate()
    specification.optimize(quantization=None if kind == "float32" else kind)
    with tempfile.TemporaryDirectory() as folder:
        specification.save(folder)
        translator = ctranslate2.Translator(folder, compute_type=kind, intra_threads=threads)
    numbers = {name: number for number, name in enumerate(names)}

    def translate(rows: list[list[int]]) -> list[list[int]]:
        found = translator.translate_batch(
            [[names[number] for number in row] for row in rows],
            beam_size=beam,
            length_penalty=1,
            max_decoding_length=longest,
            min_decoding_length=0,
            max_input_length=0,
        )
        return [[numbers[name] for name in one.hypotheses[0]] for one in found]

    return translate


def main() -> None:
    """Translate and print the time and the ids."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    saved = torch.load(arguments.model, weights_only=True)
    model = MarianMTModel(MarianConfig(**saved["config"])).eval()
    missing, unknown = model.load_state_dict(saved["weights"], strict=False)
    # Embeddings and head are one matrix, and the table of sines is computed.
    if unknown or not all(
        name.endswith((".embed_tokens.weight", ".embed_positions.weight")) or name == "lm_head.weight"
        for name in missing
    ):
        raise SystemExit(f"the weights do not fit: {[*unknown, *missing]}")
    if arguments.contender == "transformers":
        translate = _transformers(model, arguments.beam, arguments.longest)
    else:
        translate = _ctranslate2(
            model, arguments.beam, arguments.longest, arguments.contender, arguments.threads
        )
    rows = sources(arguments.pairs)
    batches = chosen_batches(arguments.pairs, arguments.sentences, arguments.batch)
    print_result(measure(translate, [[rows[index] for index in batch] for batch in batches]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", choices=("transformers", "float32", "int8"), required=True)
    add_translating(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Insight: train, compress and safety-test transformers from one YAML file."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports
from insight.runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from insight.api.average import average_weights as average_weights
    from insight.api.benchmark import benchmark as benchmark
    from insight.api.check import check as check
    from insight.api.clean import clean_pairs as clean_pairs
    from insight.api.compare_translations import compare_translations as compare_translations
    from insight.api.estimate import estimate as estimate
    from insight.api.evaluate import predict as predict
    from insight.api.evaluate import test as test
    from insight.api.evaluate import validate as validate
    from insight.api.export_model import export_model as export_model
    from insight.api.fit import fit as fit
    from insight.api.import_model import import_model as import_model
    from insight.api.quantize import quantize as quantize
    from insight.api.redteam import redteam as redteam
    from insight.api.tokenize import encode_files as encode_files
    from insight.api.tokenize import train_tokenizer as train_tokenizer
    from insight.api.translate import translate as translate
    from insight.api.translate import translate_file as translate_file
    from insight.checkpoints import load_checkpoint as load_checkpoint
    from insight.checkpoints.artifact import load_model as load_model
    from insight.data import LanguageModelingDataModule as LanguageModelingDataModule
    from insight.data import TranslationDataModule as TranslationDataModule
    from insight.data import load_tokenizer as load_tokenizer
    from insight.generation import GenerationSettings as GenerationSettings
    from insight.generation import generate as generate
    from insight.generation import stream as stream
    from insight.models import DecoderConfig as DecoderConfig
    from insight.models import EncoderDecoderConfig as EncoderDecoderConfig
    from insight.optimization import QuantizationConfig as QuantizationConfig
    from insight.reporting import read_metrics as read_metrics
    from insight.reporting import read_summary as read_summary
    from insight.reporting import write_report as write_report
    from insight.runtime.run_folder import RunFolder as RunFolder
    from insight.runtime.run_folder import find_checkpoint as find_checkpoint
    from insight.training import LanguageModelingModule as LanguageModelingModule
    from insight.training import TranslationModule as TranslationModule

__getattr__, __all__ = lazy_exports(__name__)

"""Measures ways to quantize a model on this machine within a given time, and chooses one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from insight.checkpoints import LoadedCheckpoint
from insight.data.store import TokenStore
from insight.generation.generator import cache_for
from insight.models import Decoder
from insight.optimization.candidates import ORIGINAL, Candidate, choose, mark_front
from insight.optimization.config import QuantizationConfig, check_search
from insight.optimization.measurement import Quality, compare_quality, measure_speed
from insight.optimization.measurement.footprint import weight_bytes
from insight.optimization.measurement.quality import Calibration, MeasuredText
from insight.optimization.quantizer import OptimizedModel, save_artifact
from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.files import new_folder
from insight.runtime.formats import format_duration
from insight.runtime.hardware import measure_hardware
from insight.runtime.json_files import to_text
from insight.runtime.messages import say
from insight.runtime.run_folder import SEARCH_REPORT

# Shares of the time: quality of one candidate, and speed of all together.
_QUALITY_SHARE, _SPEED_SHARE = 0.02, 0.2
# Quality, like speed, is measured with single texts, as a compressed model is typically used: the rounding of
# activations, and so the logits, depend on the batch size.
_BATCH_SIZE = 1
_TRIED_WINDOWS = 16
_PROMPT_LENGTH, _NUM_NEW_TOKENS = 128, 32
# Two of these rounds are warm-up.
_ROUNDS = 6
# The assumed cost of the first compiled candidate, which also loads the compiler (20 to 30 s on two cores).
_COMPILE_SECONDS = 25.0


@dataclass(frozen=True)
class SearchResult:
    """The measurements of a search, the original first, and its choice with the reason.

    ``optimized`` is the chosen model, or ``None`` if that is the original. ``text`` tells the amount of text
    that quality was measured on, and ``machine`` the only machine that the measurements are valid for.
    """

    candidates: tuple[Candidate, ...]
    chosen: str
    reason: str
    optimized: OptimizedModel | None
    max_quality_loss: float
    text: dict[str, Any]
    machine: dict[str, Any]
    seconds: float

    def to_record(self) -> dict[str, Any]:
        """The contents of ``report.json``."""
        keys = ("chosen", "reason", "max_quality_loss", "machine", "text", "seconds")
        candidates = [candidate.to_record() for candidate in self.candidates]
        return {"format_version": 1, **{key: getattr(self, key) for key in keys}, "candidates": candidates}


@dataclass
class QuantizationSearch:
    """Compares quantized candidates with a model, which is not changed.

    Args:
        model: The model to quantize.
        text: Validation text, for quality.
        calibration: Training text, for activation ranges.
        max_quality_loss: Allowed loss, as a share of the bits per byte (upper end of its 95% interval).
        seconds: Seconds for everything; compiled candidates for which no time is left are refused.

    Raises:
        ConfigError: A number is out of range, or a text was encoded by another tokenizer.
    """

    model: LoadedCheckpoint
    text: MeasuredText
    calibration: Calibration
    max_quality_loss: float = 0.005
    seconds: float = 45.0
    _started: float = field(default=0.0, init=False)
    _num_windows: int = field(default=0, init=False)
    _has_choice: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_search(self.max_quality_loss, self.seconds)
        fingerprint = self.model.tokenizer.fingerprint()
        self.calibration.require_tokenizer(fingerprint)
        if self.text.store.manifest.tokenizer_fingerprint != fingerprint:
            problem = "the text to measure on was encoded by another tokenizer"
            raise ConfigError(problem, "encode it with the tokenizer of the model")

    def run(self, configs: Sequence[QuantizationConfig], *, may_keep: bool = True) -> SearchResult:
        """Measure every candidate in order and choose one; the original may be chosen with ``may_keep`` only.

        Raises:
            ConfigError: The checks refuse every candidate; the reason is that of the first.
            InsightError: The original may not be chosen, and no candidate is within the bound.
        """
        problems = {}
        for config in configs:
            for found in config.build().check(self.model)[:1]:
                problems[config.name] = ConfigError(found.reason, found.remedy)
        if len(problems) == len(configs):
            raise problems[configs[0].name]
        self._started = time.perf_counter()
        self._has_choice = len(configs) > 1
        reference, size = self._quality_of_original(), weight_bytes(self.model.network)
        bits = reference.bits_per_byte
        original = Candidate(ORIGINAL, "none", compiled=False, disk_bytes=size, bits_per_byte=bits)
        candidates, models = {ORIGINAL: original}, {}
        cost = _COMPILE_SECONDS
        for number, config in enumerate(configs, 1):
            begun = time.perf_counter()
            self._say_time(f"candidate {number} of {len(configs)}, {config.name}")
            try:
                if config.name in problems:
                    raise problems[config.name]
                if config.compile:
                    self._require_time(cost)
                models[config.name], candidates[config.name] = self._try(config, reference)
            except InsightError as error:
                refused = Candidate(config.name, config.method, config.compile, "refused", str(error))
                candidates[config.name] = refused
            if config.compile and (spent := time.perf_counter() - begun) > 1:  # something was compiled
                cost = spent
        self._say_time(f"speed of {len(models) + 1} models")
        self._add_speeds(candidates, models)
        table = mark_front(list(candidates.values()))
        chosen, reason = choose(table, self.max_quality_loss, may_keep=may_keep)
        tokens = self.text.tokens(self._num_windows)
        text = {
            "windows": self._num_windows,
            "batch_size": _BATCH_SIZE,
            "tokens": len(tokens),
            "bytes": int(self.text.bytes_per_token[tokens].sum()),
        }
        machine = {**dataclasses.asdict(measure_hardware()), "num_threads": torch.get_num_threads()}
        seconds = time.perf_counter() - self._started
        loss, model = self.max_quality_loss, models.get(chosen)
        return SearchResult(tuple(table), chosen, reason, model, loss, text, machine, seconds)

    def _say_time(self, work: str) -> None:
        """Print what is measured next, with the time spent and the time left."""
        spent = time.perf_counter() - self._started
        left = max(0.0, self.seconds - spent)
        say(f"quantization: {work} ({format_duration(spent)} spent, about {format_duration(left)} left)")

    def _require_time(self, seconds: float) -> None:
        """Raise an InsightError if compiling would leave no time for speed, except for a single candidate."""
        spent = time.perf_counter() - self._started
        left = self.seconds * (1 - _SPEED_SHARE) - spent
        if self._has_choice and seconds > left:
            problem = f"compiling takes about {seconds:.0f} s and {max(0.0, left):.0f} s are left"
            raise InsightError(f"no time: {problem}", "give more --seconds")

    def _try(self, config: QuantizationConfig, reference: Quality) -> tuple[OptimizedModel, Candidate]:
        model = config.build().apply(self.model, self.calibration)
        network = model.checkpoint.network
        begun = time.perf_counter()
        if config.compile:
            self._compile(network)
        compile_seconds = time.perf_counter() - begun if config.compile else None
        quality = self.text.measure(network, self._num_windows, _BATCH_SIZE)
        candidate = Candidate(
            config.name,
            config.method,
            config.compile,
            disk_bytes=weight_bytes(network),
            bits_per_byte=quality.bits_per_byte,
            quality_difference=compare_quality(reference, quality),
            compile_seconds=compile_seconds,
            modules_quantized=model.report.modules_quantized,
            modules_kept=model.report.modules_kept,
        )
        return model, candidate

    def _quality_of_original(self) -> Quality:
        """Choose the amount of text by timing a few windows, and measure the original on it."""
        network, tried = self.model.network, min(_TRIED_WINDOWS, self.text.num_windows)
        self.text.measure(network, tried, _BATCH_SIZE)
        begun = time.perf_counter()
        self.text.measure(network, tried, _BATCH_SIZE)
        seconds = time.perf_counter() - begun
        rounds = max(1, int(_QUALITY_SHARE * self.seconds / seconds))
        self._num_windows = min(rounds * tried, self.text.num_windows)
        return self.text.measure(network, self._num_windows, _BATCH_SIZE)

    def _compile(self, network: Decoder) -> None:
        """Compile by running every measured shape once.

        Raises:
            InsightError: The compiler fails, or is too slow for the time left.
        """
        device = network.embedding.weight.device
        cache = cache_for(network, 1, self._prompt_length + 1)
        length = max(self.text.sequence_length, self._prompt_length)
        ids = torch.zeros(_BATCH_SIZE, length, dtype=torch.int64, device=device)
        window, prompt = ids[:, : self.text.sequence_length], ids[:, : self._prompt_length]
        try:
            for tokens, memory in ((window, None), (prompt, cache), (ids[:, :1], cache)):
                begun = time.perf_counter()
                with torch.inference_mode():
                    network(tokens, cache=memory)
                # Each shape takes about half as long to compile as the one before.
                self._require_time((time.perf_counter() - begun) / 2)
        except RuntimeError as error:  # of dynamo, inductor or the C++ compiler
            reason = " ".join(str(error).split())[:160]
            raise InsightError(f"compiling failed ({reason})", "use --compile off") from error

    @property
    def _prompt_length(self) -> int:
        return max(1, min(_PROMPT_LENGTH, self.model.network.config.max_sequence_length // 2))

    def _add_speeds(self, candidates: dict[str, Candidate], models: dict[str, OptimizedModel]) -> None:
        networks = {ORIGINAL: self.model.network}
        networks |= {name: model.checkpoint.network for name, model in models.items()}
        # As many steps per round as the minimum number of rounds leaves time for.
        seconds, prompt_length = _SPEED_SHARE * self.seconds, self._prompt_length
        readings = measure_speed(networks, batch_sizes=(1,), prompt_length=1, num_new_tokens=1, seconds=0.0)
        step = sum(reading.decode_seconds_p50 for (reading,) in readings.values())
        room = self.model.network.config.max_sequence_length - prompt_length
        new = max(1, min(_NUM_NEW_TOKENS, room, int(seconds / step / _ROUNDS)))
        speeds = measure_speed(
            networks, batch_sizes=(1,), prompt_length=prompt_length, num_new_tokens=new, seconds=seconds / 2
        )
        for name, (speed,) in speeds.items():
            candidates[name] = dataclasses.replace(
                candidates[name],
                prefill_seconds=speed.prefill_seconds_p50,
                decode_seconds=speed.decode_seconds_p50,
                tokens_per_second=speed.tokens_per_second,
            )


def compress(
    model: LoadedCheckpoint,
    configs: Sequence[QuantizationConfig],
    *,
    validation: TokenStore,
    train: TokenStore,
    folder: Path,
    may_keep: bool,
    max_quality_loss: float = 0.005,
    seconds: float = 45.0,
    run_config: Path | None = None,
) -> SearchResult:
    """Search for the best compressed form of a model and write it as a new folder.

    The folder is the artefact with ``report.json``, or only the report if the original is best. Quality is
    measured on the validation text; activation ranges come from the training text. ``run_config``, the
    configuration of the run, lets the artefact be tested on the run's text. The other arguments are those of
    :class:`QuantizationSearch`.

    Raises:
        InsightError: The checks refuse every candidate, none is good enough, or the folder cannot be written.
    """
    length = model.metadata["sequence_length"]
    text = MeasuredText.of(validation, model.tokenizer, length)
    calibration = Calibration.from_store(train, length)
    search = QuantizationSearch(model, text, calibration, max_quality_loss, seconds)
    say(f"quantization: {len(configs)} candidates in about {seconds:.0f} s")
    result = search.run(configs, may_keep=may_keep)
    write_result(result, folder, run_config)
    return result


def write_result(result: SearchResult, folder: Path, run_config: Path | None = None) -> None:
    """Write ``report.json`` and, unless the original was chosen, the artefact as a new folder.

    Raises:
        OutputError: The folder exists or cannot be written.
    """
    report = to_text(result.to_record(), indent=2) + "\n"
    if result.optimized is None:
        with new_folder(folder) as temporary:
            (temporary / SEARCH_REPORT).write_text(report, encoding="utf-8")
        return
    files = {SEARCH_REPORT: report}
    if run_config is not None and run_config.is_file():
        files["config.yaml"] = run_config.read_text(encoding="utf-8")
    save_artifact(result.optimized, folder, files)

"""Latency of a classifier, from the encoded image to the logit."""

import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from tqdm import tqdm

from inandout.classifier.backbone import DefectNet
from inandout.classifier.onnx_file import open_onnx, run_onnx
from inandout.classifier.pixels import Pixels
from inandout.classifier.training import predict
from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import decode_image
from inandout.reporting.tables import aligned

Predictor = Callable[[Pixels], object]
"""A loaded model that maps pixels (N, H, W, 3) to logits."""
State = Literal["cold", "warm"]

BATCHES = (1, 8)
COLD_ROUNDS = 5
WARM_UP = 3


class Timing(NamedTuple):
    """Measured times of one engine, state and batch size."""

    engine: str
    state: State
    """cold: loading the model and its first prediction, in a running process; warm: any later prediction."""
    batch: int
    seconds: Sequence[float]

    def milliseconds(self) -> list[float]:
        """Return the 50th, 95th and 99th percentile."""
        return [1000 * float(value) for value in np.percentile(self.seconds, [50, 95, 99])]


def measure_latency(
    load: Callable[[], DefectNet], geometry: Geometry, files: Sequence[bytes], onnx: Path, rounds: int
) -> list[Timing]:  # fmt: skip
    """Time torch and onnxruntime on the CPU, with the same number of threads, including decoding and preprocessing.

    Args:
        load: returns the torch model.
        geometry: size and fit of the images.
        files: encoded images, decoded in every round.
        onnx: the exported file.
        rounds: timed warm predictions per engine and batch size, after `WARM_UP` untimed ones; cold predictions are
            timed `COLD_ROUNDS` times.
    """
    engines: dict[str, Callable[[], Predictor]] = {
        "torch": lambda: _torch(load), "onnxruntime": lambda: _onnx(onnx)
    }  # fmt: skip
    timings = []
    total = len(engines) * len(BATCHES) * (COLD_ROUNDS + WARM_UP + rounds)
    with tqdm(total=total, desc="latency", unit="prediction", disable=None) as bar:
        for (name, open_engine), batch in product(engines.items(), BATCHES):
            images = [files[i % len(files)] for i in range(batch)]
            cold = [_time(open_engine, images, geometry, bar) for _ in range(COLD_ROUNDS)]
            model = open_engine()
            warm = [_time(lambda: model, images, geometry, bar) for _ in range(WARM_UP + rounds)]  # noqa: B023
            timings += [Timing(name, "cold", batch, cold), Timing(name, "warm", batch, warm[WARM_UP:])]
    return timings


def _time(load: Callable[[], Predictor], files: Sequence[bytes], geometry: Geometry, bar: "tqdm[NoReturn]") -> float:
    """Return the seconds of loading, decoding and predicting."""
    started = time.perf_counter()
    model = load()
    model(np.stack([fit_image(decode_image(file, "test image"), geometry) for file in files]))
    bar.update()
    return time.perf_counter() - started


def _torch(load: Callable[[], DefectNet]) -> Predictor:
    model = load()
    return lambda pixels: predict(model, pixels)


def _onnx(path: Path) -> Predictor:
    session = open_onnx(path)
    return lambda pixels: run_onnx(session, pixels)


def latency_table(timings: Sequence[Timing]) -> str:
    """Return a Markdown table of milliseconds per prediction: 50th, 95th and 99th percentile."""
    lines = [["engine", "state", "images", "rounds", "p50 ms", "p95 ms", "p99 ms"]]
    for timing in timings:
        numbers = [f"{value:.1f}" for value in timing.milliseconds()]
        lines.append([timing.engine, timing.state, str(timing.batch), str(len(timing.seconds)), *numbers])
    return aligned(lines)

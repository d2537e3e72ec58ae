"""How long an answer takes, from the encoded image to the logit."""

import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from tqdm import tqdm

from inandout.classifier.onnx_file import open_onnx, run_onnx
from inandout.classifier.pixels import Pixels
from inandout.classifier.resnet import DefectNet
from inandout.classifier.training import predict
from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import decode_image
from inandout.reporting.tables import aligned

Answer = Callable[[Pixels], object]
"""A loaded model: pixels (N, H, W, 3) to logits."""
State = Literal["cold", "warm"]

BATCHES = (1, 8)
COLD_ROUNDS = 5
WARM_UP = 3


class Timing(NamedTuple):
    """Measured times of one kind of answer."""

    engine: str
    state: State
    """cold: reading the model and its first answer, in a process that runs already; warm: any later answer."""
    batch: int
    seconds: Sequence[float]

    def milliseconds(self) -> list[float]:
        """Percentiles 50, 95 and 99."""
        return [1000 * float(value) for value in np.percentile(self.seconds, [50, 95, 99])]


def measure_latency(
    load: Callable[[], DefectNet], geometry: Geometry, files: Sequence[bytes], onnx: Path, rounds: int
) -> list[Timing]:  # fmt: skip
    """Torch and onnxruntime on the CPU, with as many threads as torch has; decoding and preparation included.

    Args:
        load: gives the torch model.
        geometry: how images are fitted.
        files: encoded images, decoded in every round.
        onnx: the exported file.
        rounds: answers that are timed warm, of each kind, after `WARM_UP` that are not; cold there are `COLD_ROUNDS`.
    """
    engines: dict[str, Callable[[], Answer]] = {"torch": lambda: _torch(load), "onnxruntime": lambda: _onnx(onnx)}
    timings = []
    total = len(engines) * len(BATCHES) * (COLD_ROUNDS + WARM_UP + rounds)
    with tqdm(total=total, desc="latency", unit="answer", disable=None) as bar:
        for (name, open_engine), batch in product(engines.items(), BATCHES):
            images = [files[i % len(files)] for i in range(batch)]
            cold = [_time(open_engine, images, geometry, bar) for _ in range(COLD_ROUNDS)]
            loaded = open_engine()
            warm = [_time(lambda: loaded, images, geometry, bar) for _ in range(WARM_UP + rounds)]  # noqa: B023
            timings += [Timing(name, "cold", batch, cold), Timing(name, "warm", batch, warm[WARM_UP:])]
    return timings


def _time(load: Callable[[], Answer], files: Sequence[bytes], geometry: Geometry, bar: "tqdm[NoReturn]") -> float:
    """Seconds of one answer, from the model and the encoded images."""
    started = time.perf_counter()
    answer = load()
    answer(np.stack([fit_image(decode_image(file, "test image"), geometry) for file in files]))
    bar.update()
    return time.perf_counter() - started


def _torch(load: Callable[[], DefectNet]) -> Answer:
    model = load()
    return lambda pixels: predict(model, pixels)


def _onnx(path: Path) -> Answer:
    session = open_onnx(path)
    return lambda pixels: run_onnx(session, pixels)


def latency_table(timings: Sequence[Timing]) -> str:
    """As Markdown: milliseconds an answer, at the 50th, 95th and 99th percentile."""
    lines = [["engine", "state", "images", "rounds", "p50 ms", "p95 ms", "p99 ms"]]
    for timing in timings:
        numbers = [f"{value:.1f}" for value in timing.milliseconds()]
        lines.append([timing.engine, timing.state, str(timing.batch), str(len(timing.seconds)), *numbers])
    return aligned(lines)

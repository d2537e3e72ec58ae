"""Benchmark the package on a GPU: parity with the CPU; fine-tuning, drawing and classifier against bare loops.

    PYTHONPATH=. python benchmarks/gpu.py --out FOLDER [--minutes 5] [--parts drawing,classifier] [--size full|toy]

Weights are random, images are drawn; no network access and no dataset are needed. The most important measurements run
first. A measurement that would not end within `--minutes` is skipped and marked in the table; a failed measurement is
recorded with its error. After each measurement, `gpu.json` (everything) and `gpu.md` (tables) are rewritten, so that a
kill loses nothing. `parity.png` shows images drawn on the CPU (first row) and on the GPU (TF32 off; PyTorch's default).

`per_second` is the number of steps or images per second; `times_bare` is the ratio of `per_second` of the package to
the bare loop. `gpu_finetune.py`, `gpu_drawing.py` and `gpu_classifier.py` define the bare loops, `gpu_parity.py` the
tolerances. `--size toy` runs every part at toy size within a minute, on a GPU or a CPU.
"""

# ruff: noqa: E402

import time

STARTED = time.monotonic()  # includes the imports

import argparse
import json
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import gpu_classifier, gpu_drawing, gpu_finetune, gpu_parity
from benchmarks.gpu_card import DEVICE, copy_bandwidth, facts, matrix_rate
from benchmarks.gpu_shapes import FULL, SIZES, Size
from inandout.diffusion.finetune.config import Optimiser

Values = dict[str, Any]
OPTIMISERS: tuple[Optimiser, ...] = ("adamw", "adamw8bit")
PRECISIONS = ("fp16", "bf16") if DEVICE.type == "cuda" else ("fp32",)
"""Measured precisions besides fp32; kernels of a CPU for 16 bits are too slow to measure."""
PARTS = ("parity", "fine-tuning", "small cards", "drawing", "classifier", "SDXL")
_HIDDEN = ("part", "traceback")
"""Keys that the tables omit."""


@dataclass(frozen=True)
class Row:
    """A measurement."""

    part: str
    case: str
    way: str
    """`ours`, `bare`, or empty if there is only one."""
    seconds: float
    """Approximate duration on an H100 at full size."""
    measure: Callable[[], Values]


@dataclass
class Report:
    """Results, and the files with them."""

    out: Path
    about: Values
    rows: list[Values] = field(default_factory=list)

    def add(self, row: Row, values: Values) -> None:
        """Record a measurement and rewrite both files."""
        bare = [result for result in self.rows if (result["part"], result["case"]) == (row.part, row.case)]
        if row.way == "ours" and bare and "per_second" in values and "per_second" in bare[0]:
            values["times_bare"] = round(values["per_second"] / bare[0]["per_second"], 3)
        self.rows.append({"part": row.part, "case": row.case, "way": row.way} | values)
        _replace(self.out / "gpu.json", json.dumps({"about": self.about, "rows": self.rows}, indent=1, default=str))
        _replace(self.out / "gpu.md", "\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        yield "# GPU benchmark\n"
        yield "`per_second`: steps, or images drawn. `times_bare`: ratio of ours to the bare loop of the same case.\n"
        yield from _table([{"": name, "value": value} for name, value in self.about.items()])
        for part in dict.fromkeys(result["part"] for result in self.rows):
            yield f"\n## {part}"
            results = [result for result in self.rows if result["part"] == part]
            visible = [{key: value for key, value in result.items() if key not in _HIDDEN} for result in results]
            for _, same_keys in groupby(visible, key=lambda result: result.keys() - {"times_bare"}):
                yield ""
                yield from _table(list(same_keys))


def _table(rows: list[Values]) -> Iterator[str]:
    """Yield lines of a Markdown table with a column for every key of any row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(name, '')) for name in columns)} |"


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "/").replace("\n", " ")[:300]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def card_rows(size: Size, rates: dict[str, float]) -> Iterator[Row]:
    """Yield measurements of matrix rates, which the limit of the classifier needs, and of bandwidth."""

    def rate(precision: str) -> Values:
        rates[precision] = matrix_rate(size.matrix, precision)
        return {"tflops": rates[precision], "side": size.matrix}

    for precision in ("bf16", "fp16", "tf32", "fp32"):
        yield Row("card", f"matrix product {precision}", "", 2, partial(rate, precision))
    yield Row("card", "copy", "", 1, lambda: {"gb_a_second": copy_bandwidth(size.copied)})


def parity_rows(size: Size, reference: gpu_parity.Reference, out: Path) -> Iterator[Row]:
    """Yield comparisons of CPU and GPU."""
    part, sheet = "parity", out / "parity.png"
    yield Row(part, "classifier logits", "", 15, lambda: gpu_parity.compare_logits(reference, size))
    yield Row(part, "fine-tuning step", "", 10, lambda: gpu_parity.compare_step(reference, size))
    yield Row(part, "drawn images, grey levels", "", 10, lambda: gpu_parity.compare_drawn(reference, size, sheet))
    for optimiser in OPTIMISERS:
        measure = partial(gpu_parity.compare_resumed, size, optimiser)
        yield Row(part, f"stopped and resumed, {optimiser}", "", 10, measure)


def finetune_rows(size: Size, work: Path) -> Iterator[Row]:
    """Yield both 16-bit precisions with both optimisers."""
    part, bare, ours = "fine-tuning", gpu_finetune.bare, gpu_finetune.ours
    yield Row(part, "images drawn beforehand", "", 3, lambda: gpu_finetune.drawn_once(work, size))
    for precision, optimiser in product(PRECISIONS, OPTIMISERS):
        case = f"{precision} {optimiser}, batch {size.batch}"
        for way, loop in (("bare", bare), ("ours", ours)):
            seconds = 30 if way == "bare" else 15
            yield Row(part, case, way, seconds, partial(loop, size, work, precision, optimiser, size.batch))


def small_card_rows(size: Size, work: Path) -> Iterator[Row]:
    """Yield fine-tuning on a card of 8 GB, and drawing on a card of 5 GB."""
    precision, optimiser = PRECISIONS[0], OPTIMISERS[DEVICE.type == "cuda"]
    micro = max(size.batch // 3, 1)
    case = f"at most 8 GB: {precision} {optimiser}, checkpointing, batch {size.batch} as micro-batches of {micro}"
    measure = partial(
        gpu_finetune.ours, size, work, precision, optimiser, size.batch, micro_batch=micro, checkpointing=True,
        limit_gb=8,
    )  # fmt: skip
    yield Row("small cards", case, "ours", 30, measure)
    measure = partial(gpu_drawing.draw, replace(size, drawn=1), "ours", precision, "ddim", limit_gb=5)
    yield Row("small cards", f"at most 5 GB: drawing, {precision} ddim, batch 1", "ours", 4, measure)


def fp32_rows(size: Size, work: Path) -> Iterator[Row]:
    """Yield fp32, the default precision of the package, with a batch that fits into 80 GB."""
    batch, part = max(size.batch // 3, 2), "fine-tuning"
    for way, loop in (("bare", gpu_finetune.bare), ("ours", gpu_finetune.ours)):
        yield Row(part, f"fp32 adamw, batch {batch}", way, 9, partial(loop, size, work, "fp32", "adamw", batch))


def drawing_rows(size: Size) -> Iterator[Row]:
    """Yield 16 bits, the default on a GPU, and fp32, each also with the layout of diffusers."""
    for precision in dict.fromkeys((*PRECISIONS, "fp32")):
        for scheduler, steps in gpu_drawing.STEPS.items():
            for way in gpu_drawing.WAYS:
                measure = partial(gpu_drawing.draw, size, way, precision, scheduler)
                yield Row(
                    "drawing", f"{precision} {scheduler}, {steps} steps", way, 8 if precision == "fp32" else 4, measure
                )


def classifier_rows(size: Size, rates: dict[str, float]) -> Iterator[Row]:
    """Yield all batch sizes in every precision."""
    for batch in size.part_batches:
        for setting in size.settings:
            for way in ("bare", "ours"):
                measure = partial(gpu_classifier.train, size, way, setting, batch, rates)
                yield Row("classifier", f"{setting}, batch {batch}", way, 5, measure)


def compiled_rows(size: Size, rates: dict[str, float]) -> Iterator[Row]:
    """Yield the classifier compiled by `torch.compile`."""
    for batch in size.part_batches:
        for way in ("bare", "ours"):
            measure = partial(gpu_classifier.train, size, way, "bf16", batch, rates, compiled=True)
            yield Row("classifier", f"bf16 compiled, batch {batch}", way, 60, measure)


def sdxl_rows(size: Size, work: Path) -> Iterator[Row]:
    """Yield SDXL's shape: fine-tuning with micro-batches, and drawing against diffusers' pipeline."""
    precision, optimiser = PRECISIONS[-1], OPTIMISERS[DEVICE.type == "cuda"]
    for limit in (0, 12):
        case = (
            f"fine-tuning, {precision} {optimiser}, checkpointing, micro-batches of 1"
            + f", at most {limit} GB" * bool(limit)
        )
        measure = partial(
            gpu_finetune.ours, size, work, precision, optimiser, 2, micro_batch=1, xl=True, checkpointing=True,
            limit_gb=limit,
        )  # fmt: skip
        yield Row("SDXL", case, "ours", 30, measure)
    for way in ("bare", "ours"):
        few = replace(size, drawn=min(size.drawn, 2))
        measure = partial(gpu_drawing.draw, few, way, precision, "ddim", xl=True)
        yield Row("SDXL", f"drawing, {precision} ddim, batch {few.drawn}", way, 30, measure)


def run(rows: Iterable[Row], report: Report, end: float, toy: bool) -> None:
    """Run measurements one after the other; skip those that would not end before `end`."""
    for row in rows:
        started = time.monotonic()
        if not toy and started + row.seconds > end:
            left = max(end - started, 0)
            values: Values = {"skipped": f"takes about {row.seconds:.0f} s, but only {left:.0f} s are left"}
        else:
            try:
                values = row.measure()
            except Exception as error:  # the next measurement may work
                values = {"error": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()}
            values["took_s"] = round(time.monotonic() - started, 1)
        report.add(row, values)
        shown = ", ".join(f"{name} {_cell(value)}" for name, value in values.items() if name != "traceback")
        print(f"{time.monotonic() - STARTED:6.1f} s  {row.part}: {row.case} {row.way}: {shown}", flush=True)


def measure_all(out: Path, size_name: str, end: float, parts: list[str]) -> None:
    """Measure the card, then `parts`, most important first."""
    size = SIZES[size_name]
    rates: dict[str, float] = {}
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out, facts() | {"size": size_name, "imports_s": round(time.monotonic() - STARTED, 1)})
    with TemporaryDirectory() as folder:
        work = Path(folder)
        reference = gpu_parity.Reference(work, size_name) if "parity" in parts else None
        try:
            rows = [
                *card_rows(size, rates), *(parity_rows(size, reference, out) if reference else ()),
                *finetune_rows(size, work),
                *small_card_rows(size, work), *drawing_rows(size), *classifier_rows(size, rates),
                *sdxl_rows(size, work), *fp32_rows(size, work), *compiled_rows(size, rates),
            ]  # fmt: skip
            run([row for row in rows if row.part in ("card", *parts)], report, end, toy=size is not FULL)
        finally:
            if reference:
                reference.end()


def main() -> None:
    """Run the benchmark, or compute the reference values of the CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for gpu.json, gpu.md and parity.png")
    parser.add_argument("--minutes", type=float, default=5, help="time limit, imports included (default: 5)")
    parser.add_argument("--size", choices=SIZES, default="full", help="toy: every part within a minute (default: full)")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts, separated by commas (default: all)")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference is not None:
        gpu_parity.write_reference(options.reference, SIZES[options.size])
    elif options.out is None:
        parser.error("--out is required")
    else:
        parts = options.parts.split(",")
        if unknown := set(parts) - set(PARTS):
            parser.error(f"--parts: unknown part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
        measure_all(options.out, options.size, STARTED + 60 * options.minutes, parts)


if __name__ == "__main__":
    main()

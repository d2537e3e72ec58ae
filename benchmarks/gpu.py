"""What a GPU makes of the package: parity with the CPU, fine-tuning, drawing and the classifier, against bare loops.

    PYTHONPATH=. python benchmarks/gpu.py --out FOLDER [--minutes 5] [--parts drawing,classifier] [--size full|toy]

Random weights, drawn images, no network and no data set. Measurements run in the order of their worth. One that would
not end within `--minutes` is left out, and the table says so; one that fails is recorded with its error, and the next
goes on. After each, `gpu.json` (everything) and `gpu.md` (tables) are written anew, so that a kill loses nothing.
`parity.png` shows images drawn on the CPU (first row) and on the GPU (TF32 off; PyTorch's default).

`per_second` are steps or images a second; `times_bare` is that of ours over that of the bare way of the same case.
What the bare ways are is said in `gpu_finetune.py`, `gpu_drawing.py` and `gpu_classifier.py`, tolerances in
`gpu_parity.py`. `--size toy` runs every part at toy size within a minute, on a GPU or on a CPU.
"""

# ruff: noqa: E402

import time

STARTED = time.monotonic()  # before the imports, which count

import argparse
import json
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import gpu_classifier, gpu_drawing, gpu_finetune, gpu_parity
from benchmarks.gpu_card import DEVICE, copy_bandwidth, facts, matrix_rate
from benchmarks.gpu_shapes import FULL, SIZES, Size

Values = dict[str, Any]
PARTS = ("parity", "fine-tuning", "drawing", "classifier")
_HIDDEN = ("part", "traceback")
"""What the tables leave out."""


@dataclass(frozen=True)
class Row:
    """A measurement."""

    part: str
    case: str
    way: str
    """`ours`, `bare`, or `` where there is one way only."""
    seconds: float
    """About what it takes on an H100 at full size."""
    measure: Callable[[], Values]


@dataclass
class Report:
    """What has been measured, and the files that tell it."""

    out: Path
    about: Values
    rows: list[Values] = field(default_factory=list)

    def add(self, row: Row, values: Values) -> None:
        """Record a measurement and write both files anew."""
        bare = [told for told in self.rows if (told["part"], told["case"]) == (row.part, row.case)]
        if row.way == "ours" and bare and "per_second" in values and "per_second" in bare[0]:
            values["times_bare"] = round(values["per_second"] / bare[0]["per_second"], 3)
        self.rows.append({"part": row.part, "case": row.case, "way": row.way} | values)
        _replace(self.out / "gpu.json", json.dumps({"about": self.about, "rows": self.rows}, indent=1, default=str))
        _replace(self.out / "gpu.md", "\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        yield "# GPU benchmark\n"
        yield "`per_second`: steps, or images drawn. `times_bare`: ours over the bare way of the same case.\n"
        yield from _table([{"": name, "value": value} for name, value in self.about.items()])
        for part in dict.fromkeys(told["part"] for told in self.rows):
            yield f"\n## {part}"
            shown = [{k: v for k, v in told.items() if k not in _HIDDEN} for told in self.rows if told["part"] == part]
            for _, alike in groupby(shown, key=lambda told: told.keys() - {"times_bare"}):
                yield ""
                yield from _table(list(alike))


def _table(rows: list[Values]) -> Iterator[str]:
    """Markdown, with a column for every key of any row."""
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
    """Matrix rates, which the classifier's limit needs, and the bandwidth."""

    def rate(precision: str) -> Values:
        rates[precision] = matrix_rate(size.matrix, precision)
        return {"tflops": rates[precision], "side": size.matrix}

    for precision in ("bf16", "fp16", "tf32", "fp32"):
        yield Row("card", f"matrix product {precision}", "", 2, partial(rate, precision))
    yield Row("card", "copy", "", 1, lambda: {"gb_a_second": copy_bandwidth(size.copied)})


def parity_rows(size: Size, reference: gpu_parity.Reference, out: Path) -> Iterator[Row]:
    """CPU against GPU."""
    part, sheet = "parity", out / "parity.png"
    yield Row(part, "classifier logits", "", 15, lambda: gpu_parity.compare_logits(reference, size))
    yield Row(part, "fine-tuning step", "", 10, lambda: gpu_parity.compare_step(reference, size))
    yield Row(part, "drawn images, grey levels", "", 10, lambda: gpu_parity.compare_drawn(reference, size, sheet))
    for optimiser in ("adamw", "adamw8bit"):
        measure = partial(gpu_parity.compare_resumed, size, optimiser)
        yield Row(part, f"stopped and resumed, {optimiser}", "", 10, measure)


def finetune_rows(size: Size, work: Path) -> Iterator[Row]:
    """Both precisions and optimisers, then a card of 8 GB, then fp32."""
    part, bare, ours = "fine-tuning", gpu_finetune.bare, gpu_finetune.ours
    yield Row(part, "images drawn beforehand", "", 3, lambda: gpu_finetune.drawn_once(work, size))
    sixteen = ("fp16", "bf16") if DEVICE.type == "cuda" else ()  # a CPU has no kernels for them worth a measurement
    pairs = [(p, o) for o in ("adamw", "adamw8bit") for p in (sixteen or ("fp32",))]
    for precision, optimiser in pairs:
        case = f"{precision} {optimiser}, batch {size.batch}"
        for way, loop in (("bare", bare), ("ours", ours)):
            seconds = 30 if way == "bare" else 15
            yield Row(part, case, way, seconds, partial(loop, size, work, precision, optimiser, size.batch))
    for batch in (1, 2):
        optimiser = "adamw8bit" if sixteen else "adamw"
        case = f"at most 8 GB: {pairs[0][0]} {optimiser}, checkpointing, batch {batch}"
        small = partial(ours, size, work, pairs[0][0], optimiser, batch, checkpointing=True, limit_gb=8)
        yield Row(part, case, "ours", 7, small)


def fp32_rows(size: Size, work: Path) -> Iterator[Row]:
    """The package's default precision, with a batch that fits 80 GB."""
    batch, part = max(size.batch // 3, 2), "fine-tuning"
    for way, loop in (("bare", gpu_finetune.bare), ("ours", gpu_finetune.ours)):
        yield Row(part, f"fp32 adamw, batch {batch}", way, 9, partial(loop, size, work, "fp32", "adamw", batch))


def drawing_rows(size: Size) -> Iterator[Row]:
    """fp32, which is what the package has, and 16 bits."""
    precisions = {"fp32": 8, "fp16": 4, "bf16": 4} if DEVICE.type == "cuda" else {"fp32": 8}
    for precision, seconds in precisions.items():
        for scheduler, steps in gpu_drawing.STEPS.items():
            for way in ("bare", "ours"):
                measure = partial(gpu_drawing.draw, size, way, precision, scheduler)
                yield Row("drawing", f"{precision} {scheduler}, {steps} steps", way, seconds, measure)


def classifier_rows(size: Size, rates: dict[str, float]) -> Iterator[Row]:
    """Both batches in every precision, compiled last."""
    for batch in size.part_batches:
        for setting in size.settings:
            for way in ("bare", "ours"):
                measure = partial(gpu_classifier.train, size, way, setting, batch, rates)
                yield Row("classifier", f"{setting}, batch {batch}", way, 5, measure)
    for batch in size.part_batches:
        measure = partial(gpu_classifier.train, size, "bare", "bf16", batch, rates, compiled=True)
        yield Row("classifier", f"bf16 compiled, batch {batch}", "bare", 60, measure)


def sdxl_rows() -> Iterator[Row]:
    """Named so that nobody misses it."""
    yield Row("fine-tuning", "SDXL's shape", "", 0, lambda: {"skipped": "the package cannot open SDXL yet"})


def run(rows: Iterable[Row], report: Report, end: float, toy: bool) -> None:
    """One after the other, as long as there is time."""
    for row in rows:
        begun = time.monotonic()
        if not toy and begun + row.seconds > end:
            left = max(end - begun, 0)
            values: Values = {"skipped": f"takes about {row.seconds:.0f} s, and {left:.0f} s of --minutes were left"}
        else:
            try:
                values = row.measure()
            except Exception as error:  # the next measurement may work
                values = {"error": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()}
            values["took_s"] = round(time.monotonic() - begun, 1)
        report.add(row, values)
        shown = ", ".join(f"{name} {_cell(value)}" for name, value in values.items() if name != "traceback")
        print(f"{time.monotonic() - STARTED:6.1f} s  {row.part}: {row.case} {row.way}: {shown}", flush=True)


def measure_all(out: Path, size_name: str, end: float, parts: list[str]) -> None:
    """The card and every one of `parts`, in the order of worth."""
    size, rates = SIZES[size_name], {}
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out, facts() | {"size": size_name, "imports_s": round(time.monotonic() - STARTED, 1)})
    with TemporaryDirectory() as folder:
        work = Path(folder)
        reference = gpu_parity.Reference(work, size_name)
        try:
            rows = [
                *card_rows(size, rates), *parity_rows(size, reference, out), *finetune_rows(size, work),
                *drawing_rows(size), *classifier_rows(size, rates), *fp32_rows(size, work), *sdxl_rows(),
            ]  # fmt: skip
            run([row for row in rows if row.part in ("card", *parts)], report, end, toy=size is not FULL)
        finally:
            reference.end()


def main() -> None:
    """Measure, or compute the CPU's part of the parity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for gpu.json, gpu.md and parity.png")
    parser.add_argument("--minutes", type=float, default=5, help="in all, imports included (default 5)")
    parser.add_argument("--size", choices=SIZES, default="full", help="toy: every part within a minute (default full)")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas (default all)")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference is not None:
        gpu_parity.write_reference(options.reference, SIZES[options.size])
    elif options.out is None:
        parser.error("--out is needed")
    else:
        parts = options.parts.split(",")
        if unknown := set(parts) - set(PARTS):
            parser.error(f"--parts: no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        measure_all(options.out, options.size, STARTED + 60 * options.minutes, parts)


if __name__ == "__main__":
    main()

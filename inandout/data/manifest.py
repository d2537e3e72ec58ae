"""The manifest, a CSV file with one row per image. Stages read and write manifests."""

import csv
import hashlib
import json
import stat
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inandout.data.file_cache import FileCache
from inandout.data.text import clean_row, decode_text, locate, path_problem, read_table, to_cell
from inandout.errors import InputError
from inandout.files import replacing, require_regular

Split = Literal["", "train", "val", "test"]
Origin = Literal["real", "memseg", "ddpm", "inpaint", "roundtrip", "other"]
"""How the image was made; roundtrip: a real image encoded and decoded by the VAE of a base model; other: by another
generator, perhaps without a record of its sources."""
Review = Literal["", "keep", "reject", "unsure"]


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _split_ids(value: object) -> object:
    return tuple(value.split(";")) if isinstance(value, str) and value else value or ()


_DIGESTS: FileCache[str] = FileCache(100_000)


class Sample(BaseModel):
    """One image and its metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Path
    """Absolute path of the image."""
    mask: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    """Absolute path of the defect mask, if available."""
    label: int = Field(ge=0, le=1)
    """1 = defect (positive), 0 = no defect (negative)."""
    defect: str = ""
    """Kind of defect, if known."""
    split: Split = ""
    group: str = ""
    """Images of one physical part share a group; a group never spans two splits."""
    origin: Origin = "real"
    seed: Annotated[int | None, BeforeValidator(_none_if_empty)] = None
    """Seed of a synthetic image."""
    prompt: str = ""
    alpha: Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_none_if_empty)] = None
    """Weight of the merged LoRA adapter."""
    adapter: str = ""
    """Fingerprint of the LoRA adapter."""
    base: str = ""
    """Fingerprint of the base model."""
    sources: Annotated[tuple[str, ...], BeforeValidator(_split_ids)] = ()
    """Content digests (`digest`) of the images that a synthetic image was made from."""
    run: str = ""
    """ID of the MLflow run that made the image."""
    review: Review = ""

    def with_(self, **changes: Any) -> "Sample":
        """Return a copy with some fields changed."""
        return self.model_copy(update=changes)


def read_manifest(path: Path) -> list[Sample]:
    """Read a CSV manifest as spreadsheets, pandas, Windows and macOS write it; see `inandout.data.text`.

    Relative paths are relative to the folder of the manifest.

    Raises:
        InputError: the file is missing or has no rows, a column is missing, unknown or repeated, a row has more or
            fewer cells than the header, a value is out of range, or an image is listed twice. Invalid rows are
            reported together.
    """
    require_regular(path)
    try:
        text = decode_text(path.read_bytes())
    except FileNotFoundError as error:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise InputError(f"{path}: no such file{where}; give an existing CSV manifest") from error
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{path}: cannot be read as a CSV manifest ({error}); save it as UTF-8 text, in Excel as CSV UTF-8"
        ) from error
    folder = path.parent.resolve()
    samples = [_located(sample, folder) for sample in _parse(path, text)]
    _reject_duplicates(path, samples)
    return samples


@lru_cache(maxsize=8)
def _parse(path: Path, text: str) -> tuple[Sample, ...]:
    """Parse the rows of a manifest; cached, because a search reads the same manifest in every trial."""
    table = read_table(path, text)
    allowed = set(Sample.model_fields)
    columns = set(table.columns)
    if not {"image", "label"} <= columns <= allowed:
        raise InputError(
            f"{path}: the columns are {sorted(columns)}; required are 'image' and 'label', "
            f"optional are {sorted(allowed - {'image', 'label'})}; rename or remove the others"
        )
    samples, errors = [], []
    for line, cells in table.rows:
        try:
            samples.append(_parse_row(line, dict(zip(table.columns, cells, strict=False)), len(cells), len(columns)))
        except InputError as error:
            errors.append(str(error))
    if errors:
        more = f"; and {len(errors) - 5} more rows" if len(errors) > 5 else ""
        raise InputError(f"{path}, {'; '.join(errors[:5])}{more}")
    if not samples:
        raise InputError(f"{path}: the manifest has no rows; add at least one image")
    return tuple(samples)


def _located(sample: Sample, folder: Path) -> Sample:
    return sample.with_(
        image=locate(folder, sample.image), mask=locate(folder, sample.mask) if sample.mask is not None else None
    )


def write_manifest(samples: Iterable[Sample], path: Path) -> None:
    """Write a CSV manifest; paths below its folder are stored as relative paths, so that the folder can be moved.

    Raises:
        InputError: the file cannot be written; an existing manifest is left unchanged.
    """
    try:
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(Sample.model_fields))
            writer.writeheader()
            for sample in samples:
                writer.writerow(_to_row(sample, path.parent.resolve()))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a file in an existing folder with free space"
        ) from error


def digest(path: Path) -> str:
    """Return the first 32 hexadecimal digits of a file's SHA-256, which identify an image.

    Raises:
        InputError: the file is missing, not regular or cannot be read.
    """
    return _DIGESTS.of(path, _digest)


def digests(paths: Sequence[Path]) -> list[str]:
    """Return `digest` of each file, in order; files are read in parallel."""
    found = dict(_DIGESTS.each(paths, _digest))
    return [found[i] for i in range(len(paths))]


def fingerprint(samples: Sequence[Sample]) -> str:
    """Return a hash of the rows of a manifest and the contents of its files, independent of their location.

    The `run` field is excluded, because the same image from another run is the same input.
    """
    masks = [sample.mask for sample in samples if sample.mask is not None]
    by_path = dict(zip(masks, digests(masks), strict=True))
    images = digests([sample.image for sample in samples])
    rows = [
        {
            **sample.model_dump(mode="json", exclude={"image", "mask", "run"}),
            "image": image,
            "mask": by_path[sample.mask] if sample.mask else "",
        }
        for sample, image in zip(samples, images, strict=True)
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file; replace it, or remove its row")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({error}); restore the file, or remove its row") from error


def _parse_row(line: int, row: dict[str, str], cells: int, columns: int) -> Sample:
    """Parse a row; the message of an error begins with its line."""
    if cells != columns:
        raise InputError(
            f"line {line}: the row has {cells} cells, the header has {columns}; "
            "correct the row (quote values that contain a comma)"
        )
    try:
        sample = Sample.model_validate(clean_row(row))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        fix = _FIXES.get(where, "correct the value")
        raise InputError(f"line {line}: {where} = {row.get(where, '')!r}: {first['msg']}; {fix}") from error
    for name, value in (("image", sample.image), ("mask", sample.mask)):
        if value is not None and (problem := path_problem(str(value))):
            raise InputError(f"line {line}: {name} = {row[name]!r}: {problem}")
    return sample


_FIXES = {
    "label": "give 0 for a part without a defect, 1 for a defect",
    "split": "give train, val, test, or nothing in all rows",
}


def _to_row(sample: Sample, folder: Path) -> dict[str, str]:
    row = {name: "" if value is None else str(value) for name, value in sample.model_dump().items()}
    row["sources"] = ";".join(sample.sources)
    for name in ("image", "mask"):
        value = getattr(sample, name)
        if value is not None and value.is_relative_to(folder):
            row[name] = value.relative_to(folder).as_posix()
    return {name: to_cell(cell) for name, cell in row.items()}


def _reject_duplicates(path: Path, samples: Sequence[Sample]) -> None:
    seen: set[Path] = set()
    for number, sample in enumerate(samples, start=2):
        if sample.image in seen:
            raise InputError(f"{path}, line {number}: {sample.image.name} is listed twice; remove one row")
        seen.add(sample.image)

"""The manifest, a CSV file with one row per image. Stages read and write manifests."""

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inandout.data.file_cache import FileCache
from inandout.errors import InputError

Split = Literal["", "train", "val", "test"]
Origin = Literal["real", "memseg", "ddpm", "inpaint", "roundtrip"]
"""How the image was made; roundtrip: a real image encoded and decoded by the VAE of a base model."""
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
    """Read a CSV manifest; relative paths are relative to its folder.

    Raises:
        InputError: the file is missing or has no rows, a column is missing or unknown, a row has more or fewer cells
            than the header, a value is out of range, or an image is listed twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # keeps line breaks inside prompts
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 CSV manifest ({error})") from error
    return list(_parse(path, path.parent.resolve(), text))


@lru_cache(maxsize=8)
def _parse(path: Path, folder: Path, text: str) -> tuple[Sample, ...]:
    """Parse the rows of a manifest; cached, because a search reads the same manifest in every trial."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = set(reader.fieldnames or ())
    allowed = set(Sample.model_fields)
    if not {"image", "label"} <= columns <= allowed:
        raise InputError(
            f"{path}: the columns are {sorted(columns)}; required are 'image' and 'label', "
            f"optional are {sorted(allowed - {'image', 'label'})}"
        )
    try:
        samples = [_parse_row(path, folder, number, row) for number, row in enumerate(reader, start=2)]
    except csv.Error as error:
        raise InputError(f"{path}, after line {reader.line_num}: {error}; correct the row") from error
    if not samples:
        raise InputError(f"{path}: the manifest has no rows; add at least one image")
    _reject_duplicates(path, samples)
    return tuple(samples)


def write_manifest(samples: Iterable[Sample], path: Path) -> None:
    """Write a CSV manifest; paths below its folder are stored as relative paths, so that the folder can be moved.

    Raises:
        InputError: the file cannot be written; an existing manifest is left unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(Sample.model_fields))
            writer.writeheader()
            for sample in samples:
                writer.writerow(_to_row(sample, path.parent.resolve()))
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a file in an existing folder with free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # already renamed, or never created
            temporary.unlink()


def digest(path: Path) -> str:
    """Return the first 32 hexadecimal digits of a file's SHA-256, which identify an image."""
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _parse_row(path: Path, folder: Path, number: int, row: dict[str | Any, str | Any]) -> Sample:
    """Parse a row of `csv.DictReader`, in which None is the value of missing cells and the key of surplus ones."""
    columns = len(row.keys() - {None})
    cells = columns - list(row.values()).count(None) + len(row.get(None, ()))
    if cells != columns:
        raise InputError(
            f"{path}, line {number}: the row has {cells} cells, the header has {columns}; "
            "correct the row (quote values that contain a comma)"
        )
    try:
        sample = Sample.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}, line {number}: {where} = {first['input']!r}: {first['msg']}") from error
    return sample.with_(image=folder / sample.image, mask=folder / sample.mask if sample.mask else None)


def _to_row(sample: Sample, folder: Path) -> dict[str, str]:
    row = {name: "" if value is None else str(value) for name, value in sample.model_dump().items()}
    row["sources"] = ";".join(sample.sources)
    for name in ("image", "mask"):
        value = getattr(sample, name)
        if value is not None and value.is_relative_to(folder):
            row[name] = value.relative_to(folder).as_posix()
    return row


def _reject_duplicates(path: Path, samples: Sequence[Sample]) -> None:
    seen: set[Path] = set()
    for number, sample in enumerate(samples, start=2):
        if sample.image in seen:
            raise InputError(f"{path}, line {number}: {sample.image.name} is listed twice; remove one row")
        seen.add(sample.image)

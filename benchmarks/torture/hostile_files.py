"""Damaged and hostile files of every kind that the package reads: each is read, or refused with one sentence."""

import io
import json
import os
import random
import resource
import select
import signal
import traceback
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.torture.outcome import Outcome, unclear
from inandout.checkpoint import load_checkpoint
from inandout.classifier.backbone import load_classifier
from inandout.config_file import read_options
from inandout.data.images import read_image, read_mask
from inandout.data.manifest import read_manifest
from inandout.data.prepare import check_data
from inandout.data.unzip import safe_unzip
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.lora.kohya_file import import_kohya
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.errors import InputError
from inandout.review.decisions import DecisionLog
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.pools.pool import read_pool
from tests.diffusion.tiny import tiny_pipeline

SECONDS = 10.0
"""Limit of one file."""
MEMORY = 4 * 2**30
"""Bytes that reading one file may need."""


class Kind(NamedTuple):
    """A kind of file: a valid content, its name, and what reads it."""

    content: bytes
    name: str
    read: Callable[[Path], object]


def read_hostile(count: int, seed: int, folder: Path) -> Outcome:
    """Read `count` files, each kind as often as the others."""
    outcome, rng = Outcome("hostile files"), random.Random(seed)
    folder.mkdir(parents=True)
    kinds = list(_kinds(folder))
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path = folder / f"{number}" / kind.name
        path.parent.mkdir(parents=True)
        how = _spoil(kind, path, rng, number // len(kinds))
        outcome.count(f"{number} {kind.name} {how}", unclear=_try(kind, path))
    outcome.remark = f"{len(kinds)} kinds"
    return outcome


def _try(kind: Kind, path: Path) -> str:
    """Read a file in a forked process with limits; return how it failed, or "" if it did not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        try:
            os.write(writer, _read(kind, path).encode(errors="replace")[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], SECONDS)[0]:
            return f"no answer in {SECONDS} s"
        said = os.read(reader, 4000).decode(errors="replace")
        return said.removeprefix("ok") if said else "the process died"
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _read(kind: Kind, path: Path) -> str:
    try:
        kind.read(path)
    except InputError as error:
        return "ok" + unclear(str(error))
    except BaseException as error:
        return f"{type(error).__name__}: {''.join(traceback.format_exception(error)[-3:])}"
    return "ok"


def _spoil(kind: Kind, path: Path, rng: random.Random, turn: int) -> str:
    """Write a spoilt file; the first turns are the same for every kind, the others random."""
    special: list[tuple[str, Callable[[], object]]] = [
        ("empty", partial(path.write_bytes, b"")),
        ("folder", path.mkdir),
        ("fifo", partial(os.mkfifo, path)),
        ("loop", partial(path.symlink_to, path)),
        ("missing", lambda: None),
        ("NUL", partial(path.write_bytes, bytes(999))),
        ("device", partial(path.symlink_to, "/dev/zero")),
        ("nested", partial(path.write_bytes, b"[" * 50_000)),
        ("numbers", partial(path.write_bytes, b'{"a": ' + b"9" * 9000 + b"}")),
    ]
    if turn < len(special):
        special[turn][1]()
        return special[turn][0]
    content = bytearray(kind.content)
    how = rng.choice(["cut", "flip", "zero", "insert", "repeat", "text"])
    place = rng.randrange(len(content))
    if how == "cut":
        del content[place:]
    elif how == "flip":
        for _ in range(rng.choice([1, 8, 64])):
            content[rng.randrange(min(len(content), rng.choice([200, len(content)])))] = rng.randrange(256)
    elif how == "zero":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    elif how == "insert":
        content[place:place] = rng.choice([b"\xff" * 8, b"9" * 5000, b'"', b"{", b"\n", b"null", b"-1", b"NaN", b"../"])
    elif how == "repeat":
        content *= 2
    else:
        words = [b"1", b"0", b"true", b'"', b"F32", b"I64", b"[", b"lora", b"image", b"label", b"epochs"]
        old = rng.choice([word for word in words if word in content] or [bytes(content[place : place + 1])])
        new = rng.choice([b"null", b"-1", b"1e999", b"[]", b"{}", b"F8_E4M3", b"9" * 30, b"\xff"])
        content = content.replace(old, new, rng.choice([1, 99]))
    path.write_bytes(content)
    return f"{how} at {place}"


def _kinds(folder: Path) -> Iterator[Kind]:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        file = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
        Image.fromarray(image).save(file, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
        yield Kind(file.getvalue(), f"image.{suffix}", read_image)
        if suffix in ("png", "tif"):
            yield Kind(file.getvalue(), f"mask.{suffix}", read_mask)
    good = folder / "good.png"
    Image.fromarray(image).save(good)
    manifest = f"image,label,mask,split,group\n{good},0,,train,a\n{good},1,,test,b\n".encode()
    yield Kind(manifest, "manifest.csv", read_manifest)
    yield Kind(manifest, "data.csv", check_data)
    yield Kind(manifest, "pool/manifest.csv", lambda path: read_pool(path.parent))
    yield Kind(b"epochs: 3\nlr: 0.1\ndata: surfaces\n", "options.yaml", _read_options)
    yield from _weights(folder)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/1.png", bytes(image))
        opened.writestr("b.txt", "text" * 100)
    yield Kind(archive.getvalue(), "archive.zip", lambda path: safe_unzip(path, path.parent / "out"))
    line = {"image": "ab" * 16, "decision": "keep", "reason": "", "reviewer": "a", "when": "2026-01-01T00:00:00Z"}
    yield Kind((json.dumps(line) + "\n").encode() * 3, "decisions.jsonl", lambda path: DecisionLog(path).read())


def _read_options(path: Path) -> object:
    try:
        return ClassifyConfig.from_flat(**read_options(str(path), "classify", ClassifyConfig))
    except ValueError as error:  # the command line makes a sentence of it
        raise InputError(str(error)) from error


def _weights(folder: Path) -> Iterator[Kind]:
    tensors = {"a.weight": torch.zeros(4, 4), "adam.0.step": torch.tensor(1.0)}
    yield Kind(save(tensors, {"progress": '{"epoch": 1}'}), "checkpoint.safetensors", load_checkpoint)
    yield Kind(save(tensors, {"backbone": "resnet18"}), "classifier.safetensors", load_classifier)
    base = folder / "base"
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(base)
    lora: dict[str, Any] = {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(2, 8)}
    lora |= {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(8, 2)}
    lora |= {"lora_unet_mid_block_attentions_0_proj_in.alpha": torch.tensor(1.0)}
    yield Kind(save(lora, {"ss_network_dim": "2"}), "kohya.safetensors", lambda p: import_kohya(p, pipeline, "ab" * 16))
    yield Kind(save(lora, {"inandout": "{}"}), "adapter.safetensors", load_adapter)
    for name in ("model_index.json", "unet/config.json", "tokenizer/tokenizer.json", "vae/config.json"):
        yield Kind((base / name).read_bytes(), name.replace("/", "-"), _in_base(base, name))
    for name in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        yield Kind((base / name).read_bytes(), name.replace("/", "-"), _in_base(base, name))


def _in_base(base: Path, name: str) -> Callable[[Path], object]:
    """Return a function that opens the base with one file replaced."""

    def read(path: Path) -> object:
        other = path.parent / "base"
        for file in base.rglob("*"):
            if file.is_file():
                target = other / file.relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path if file == base / name else file)
        return open_base(BaseConfig(base=str(other)))

    return read

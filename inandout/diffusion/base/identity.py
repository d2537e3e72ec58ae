"""Where a base model is and its identity, without loading it and without diffusers, which takes seconds to import."""

import hashlib
import json
from pathlib import Path

from inandout.checkpoint import refuse_pickle
from inandout.data.manifest import digest, digests
from inandout.diffusion.base.config import ALLOWED, BaseConfig
from inandout.diffusion.base.files import CONFIGURATION, PARTS, WEIGHTS, files_of, find_weights
from inandout.diffusion.base.hub import check_hub_id, fetch, is_hub_id
from inandout.errors import InputError

EMBEDDED = Path(__file__).parents[1] / "surface-diffusion"
"""Folder of the base model that is shipped with the package."""


def base_identity(config: BaseConfig) -> str:
    """Return an identity of the base for looking up earlier results, without loading the model.

    It is `owner/name@revision` for a base on the hub, else 32 hexadecimal digits computed from the files.

    Raises:
        InputError: the base is missing or not a base model.
    """
    check_base(config)
    if is_single_file(config):
        return _hash([digest(Path(config.base)), _folder_identity(config.base_config, CONFIGURATION)])
    return _folder_identity(config.base, CONFIGURATION + WEIGHTS)


def check_base(config: BaseConfig) -> None:
    """Raise an InputError if the name is invalid or a single file does not exist."""
    path = Path(config.base)
    if not path.is_dir():
        refuse_pickle(path)
    if config.base_config and not is_single_file(config):
        raise InputError(
            f"base_config = {config.base_config}: applies only if base is a .safetensors file, but base = "
            f"{config.base}; remove base_config"
        )
    if is_single_file(config) and not path.is_file():
        raise InputError(f"{path}: no such file{_looked_in(path)}; base must be {ALLOWED}")
    if is_single_file(config) and not config.base_config:
        raise InputError(
            f"{path}: a single file has no configuration and no tokenizer; set base_config to a folder, or "
            "owner/name@<40 hex digits> on the hub, with both in diffusers' format"
        )


def is_single_file(config: BaseConfig) -> bool:
    """Return whether the base is a `.safetensors` file."""
    return config.base.lower().endswith(".safetensors") and not Path(config.base).is_dir()


def resolve_folder(name: str, patterns: tuple[str, ...], download: bool) -> Path:
    """Return the folder with the files of a base that match `patterns`; download them if necessary."""
    return fetch(name, patterns, download) if _on_hub(name) else _local_folder(name)


def _folder_identity(name: str, patterns: tuple[str, ...]) -> str:
    if _on_hub(name):
        return "@".join(check_hub_id(name))
    folder = _local_folder(name)
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{name}: model_index.json is missing; give a folder in diffusers' format")
    files = files_of(folder, patterns)
    if set(WEIGHTS) <= set(patterns):
        files = sorted(
            {*files_of(folder, CONFIGURATION), *(file for part in PARTS for file in find_weights(folder, part).files)}
        )
    return _hash(list(zip([path.relative_to(folder).as_posix() for path in files], digests(files), strict=True)))


def _on_hub(name: str) -> bool:
    return name != "embedded" and not Path(name).is_dir() and is_hub_id(name)


def _local_folder(name: str) -> Path:
    folder = EMBEDDED if name == "embedded" else Path(name)
    if not folder.is_dir():
        raise InputError(f"{name}: no such folder{_looked_in(folder)}; base must be {ALLOWED}")
    return folder


def _looked_in(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]

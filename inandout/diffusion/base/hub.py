"""Base models on the Hugging Face hub: pin the revision and download only the necessary files."""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of httpx or httpx2, by hub version

from inandout.errors import InputError, brief

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]*))?")
_REVISION = re.compile(r"[0-9a-f]{40}")


class NotHereError(InputError):
    """The files of a base are not in the hub's cache and cannot be downloaded."""


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, `owner/name` with or without `@revision`."""
    return _ID.fullmatch(name) is not None


def check_hub_id(name: str) -> tuple[str, str]:
    """Return repository and revision of `owner/name@<40 hex digits>`.

    Raises:
        InputError: the revision is missing or is a branch, whose content may change.
    """
    match = _ID.fullmatch(name)
    if match is None or _REVISION.fullmatch(match["revision"] or "") is None:
        raise InputError(
            f"{name}: no local folder has this name, and a hub id needs a pinned revision: give "
            "owner/name@<40 hex digits>, listed on the model's page under Files > History"
        )
    return match["repository"], match["revision"]


def fetch(name: str, patterns: Sequence[str], download: bool = True) -> Path:
    """Return the folder in the hub's cache with the files of `owner/name@<40 hex digits>` that match any of `patterns`.

    Missing files are downloaded if `download` is true; cached files need no network.

    Raises:
        InputError: the revision is not pinned.
        NotHereError: the files are not in the cache and cannot be downloaded.
    """
    repository, revision = check_hub_id(name)
    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns), local_files_only=not download
            )
        )
    except (OSError, ValueError, HTTPError) as error:
        raise NotHereError(
            f"{name}: not in the hub's cache and cannot be downloaded ({brief(error)}); check id, revision and "
            "network, or give a local folder in diffusers' format, a .safetensors file, or 'embedded'"
        ) from error

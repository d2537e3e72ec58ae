"""Bases on the Hugging Face hub: pinned to a revision, and only the files that are computed with."""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of httpx or httpx2, as the hub's version has it

from inandout.errors import InputError, brief

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]*))?")
_REVISION = re.compile(r"[0-9a-f]{40}")


class NotHereError(InputError):
    """Files of a base are neither in the hub's cache nor to be had."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id, `owner/name` with or without `@revision`."""
    return _ID.fullmatch(name) is not None


def check_hub_id(name: str) -> tuple[str, str]:
    """Repository and revision of `owner/name@<40 hex digits>`.

    Raises:
        InputError: no revision, or the name of a branch, which would be another base tomorrow.
    """
    match = _ID.fullmatch(name)
    if match is None or _REVISION.fullmatch(match["revision"] or "") is None:
        raise InputError(
            f"{name}: pin the revision, as in owner/name@<40 hex digits>; it is on the model's page under "
            "Files > History (and if you mean a local folder: there is none of this name)"
        )
    return match["repository"], match["revision"]


def fetch(name: str, patterns: Sequence[str], download: bool = True) -> Path:
    """Folder in the hub's cache with the files of `owner/name@<40 hex digits>` that match one of `patterns`.

    What is in the cache already needs no network; without `download` nothing does.

    Raises:
        InputError: the revision is not pinned.
        NotHereError: the files are neither in the cache nor to be had.
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
            f"{name}: is not in the hub's cache and cannot be downloaded ({brief(error)}); check id, revision and "
            "network, or give a local folder in diffusers' format, a .safetensors file, or 'embedded'"
        ) from error

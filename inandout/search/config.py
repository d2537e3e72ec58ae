"""Types and checks of the options of `search`."""

from typing import Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

Point: TypeAlias = dict[str, float]
"""Maps parameter names to values: `alpha`, `ddpm_ratio`, and `n_aug`, `guidance`, `lr` if they are searched."""
Extra = Literal["n_aug", "guidance", "lr"]
DRIVER = "postgresql+psycopg"


def check_url(url: str) -> str:
    """Return `url` if `open_store` accepts it.

    Raises:
        ValueError: the URL is malformed, has another driver or contains a password.
    """
    parts = urlsplit(url)
    if url and "://" not in url:
        raise ValueError(f"not a URL; give {DRIVER}://user@host/database, or leave it empty")
    if url and parts.scheme != DRIVER:
        raise ValueError(f"only {DRIVER}:// is supported; leave it empty for processes on one machine")
    if parts.password or "password" in parse_qs(parts.query):
        raise ValueError("contains a password, which would be logged; use PGPASSWORD or ~/.pgpass instead")
    return url

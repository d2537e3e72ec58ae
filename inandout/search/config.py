"""Types and checks of the options of `search`."""

from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

Point: TypeAlias = dict[str, float]
"""Maps parameter names to values: `alpha`, `ddpm_ratio`, and `n_aug`, `guidance`, `lr` if they are searched."""
Extra = Literal["n_aug", "guidance", "lr"]
DRIVER = "postgresql+psycopg"
_PARAMETERS = {
    "application_name", "connect_timeout", "dbname", "host", "hostaddr", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "passfile", "port", "service", "sslcert", "sslkey", "sslmode",
    "sslrootcert", "target_session_attrs", "tcp_user_timeout",
}  # fmt: skip
"""Parameters of a URL; none of them holds a secret itself, which would be logged."""


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
    unknown = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if name not in _PARAMETERS]
    if parts.password is not None or any("pass" in name.lower() for name in unknown):
        raise ValueError("contains a password, which would be logged; use PGPASSWORD or ~/.pgpass instead")
    if unknown or parts.fragment:
        raise ValueError(f"has the parameter {', '.join(unknown) or '#'}; allowed are {', '.join(sorted(_PARAMETERS))}")
    return url

"""A PostgreSQL server of the tests' own, where Debian's binaries are installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """The port of a server on 127.0.0.1 in a temporary folder; it refuses to run as root."""
    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    root = os.getuid() == 0
    if root and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and there is no runuser")
    with tempfile.TemporaryDirectory() as folder:
        if root:
            Path(folder).chmod(0o755)
            shutil.chown(folder, "postgres")
        data, port = Path(folder) / "data", _free_port()

        def run(*command: str) -> None:
            prefix = ["runuser", "-u", "postgres", "--"] if root else []
            subprocess.run([*prefix, *command], check=True, capture_output=True, cwd=folder)

        run(str(found[-1].with_name("initdb")), "-D", str(data), "-A", "trust", "-U", "tests", "-N")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -F"
        run(str(found[-1]), "-D", str(data), "-w", "-l", str(data / "log"), "-o", options, "start")
        try:
            yield port
        finally:
            run(str(found[-1]), "-D", str(data), "-m", "immediate", "stop")


@pytest.fixture
def postgres(server: int, request: pytest.FixtureRequest) -> str:
    """Address of an empty database."""
    import psycopg

    name = f"t{abs(hash(request.node.nodeid))}"
    with psycopg.connect(f"host=127.0.0.1 port={server} user=tests dbname=postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql+psycopg://tests@127.0.0.1:{server}/{name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

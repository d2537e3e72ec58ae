"""A temporary PostgreSQL server, if Debian's binaries are installed."""

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
    """Port of a PostgreSQL server on 127.0.0.1 with its data in a temporary folder."""
    pytest.importorskip("psycopg")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not binaries:
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

        run(str(binaries[-1].with_name("initdb")), "-D", str(data), "-A", "trust", "-U", "tests", "-N")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -F"
        run(str(binaries[-1]), "-D", str(data), "-w", "-l", str(data / "log"), "-o", options, "start")
        try:
            yield port
        finally:
            run(str(binaries[-1]), "-D", str(data), "-m", "immediate", "stop")


@pytest.fixture
def postgres(server: int, request: pytest.FixtureRequest) -> str:
    """URL of an empty database."""
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

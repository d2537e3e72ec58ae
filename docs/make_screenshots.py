"""Photograph the MLflow UI for the README: runs side by side, and the trials of a search.

python docs/make_screenshots.py --store sqlite:////path/to/mlflow.db --experiment inandout
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import mlflow
import requests
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent


def options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="tracking store with finished runs of classify and of a search")
    parser.add_argument("--experiment", default="inandout", help="experiment of the runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the two pictures (default: docs)")
    return parser.parse_args()


@contextmanager
def mlflow_ui(store: str) -> Iterator[str]:
    """The address of `mlflow ui`, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port), "--workers", "1"])
    try:
        yield _answering(f"http://127.0.0.1:{port}", server)
    finally:
        server.terminate()
        server.wait()


def _answering(address: str, server: "subprocess.Popen[bytes]") -> str:
    while server.poll() is None:
        try:
            requests.get(f"{address}/health", timeout=5)
            return address
        except requests.ConnectionError:
            time.sleep(0.5)
    raise SystemExit("mlflow ui ended before it answered; its message is above")

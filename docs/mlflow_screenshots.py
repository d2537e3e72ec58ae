"""Take screenshots of the MLflow UI for the documentation: the saved views of classifiers and of trials of a search.

python docs/mlflow_screenshots.py --store sqlite:////path/to/mlflow.db     # needs Chromium and the extra `dev`
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import requests
from playwright.sync_api import Page, sync_playwright

from inandout.tracking.views import save_views, view_page

HERE = Path(__file__).parent
SETTLING = 4000
"""Milliseconds that the UI needs to draw its charts."""
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="tracking store with finished runs of classify and of a search")
    parser.add_argument("--experiment", default="inandout", help="experiment of the runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the two images (default: docs)")
    return parser.parse_args()


@contextmanager
def mlflow_ui(store: str) -> Iterator[str]:
    """Run `mlflow ui` and yield its address."""
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
        except (requests.ConnectionError, requests.Timeout):  # still starting
            time.sleep(0.5)
    raise SystemExit("mlflow ui exited before it answered; see its message above")


def open_view(page: Page, url: str) -> None:
    """Open a saved view, close the side bar, and dismiss the remark that the view is shared."""
    page.goto(url)
    page.get_by_text("matching runs").wait_for()
    page.get_by_role("button", name="Toggle sidebar").click()
    page.get_by_role("button", name="Exit shared view").locator("xpath=following::button[1]").click()


def take_screenshot(page: Page, path: Path) -> None:
    """Save a JPEG after the page has settled."""
    page.wait_for_timeout(SETTLING)
    page.screenshot(path=path, type="jpeg", quality=85)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def main() -> None:
    """Take both screenshots."""
    given = options()
    mlflow.set_tracking_uri(given.store)
    experiment = mlflow.get_experiment_by_name(given.experiment)
    if experiment is None:
        raise SystemExit(f"no experiment {given.experiment!r} in {given.store}")
    save_views(experiment.experiment_id)
    with mlflow_ui(given.store) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shots = (("ui_compare", "classifiers", "TABLE", 520), ("ui_study", "trials", "CHART", 720))
        for name, view, mode, height in shots:
            page = browser.new_page(viewport={"width": 1380, "height": height})
            page.set_default_timeout(120_000)
            page.add_init_script(NO_ASSISTANT)
            open_view(page, f"{address}/{view_page(experiment.experiment_id, view)}&compareRunsMode={mode}")
            take_screenshot(page, given.out / f"{name}.jpg")
        browser.close()


if __name__ == "__main__":
    main()

"""Memory of MLflow's server while 8 clients send the worst requests that it allows."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import requests
from PIL import Image

from benchmarks.torture.bad_requests import JSON, Answer, BadRequest, answer_is_unclear
from benchmarks.torture.outcome import Outcome
from inandout.serving.guard import MAX_BODY
from inandout.serving.request_images import MAX_REQUEST_PIXELS, MAX_ROWS

BOUND = 3_500_000_000
"""Bytes of memory of the server, as the documentation states."""
CLIENTS = 8


class Server:
    """`mlflow models serve` of a model; `url` is its address."""

    def __init__(self, folder: Path, model: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)
        ]  # fmt: skip
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        self.peak, self.stopped = 0, threading.Event()

    def wait(self) -> None:
        """Wait until the server answers."""
        for _ in range(1200):
            assert self.process.poll() is None, "the server ended"
            try:
                if requests.get(f"{self.url}/ping", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.1)
        raise TimeoutError("the server does not start")

    def send(self, request: BadRequest) -> Answer:
        """Send a request."""
        answer = requests.post(f"{self.url}/invocations", data=request.body, headers=request.headers, timeout=300)
        return Answer(answer.status_code, answer.text)

    def watch(self) -> None:
        """Note the largest memory of the server's processes until `stopped`."""
        while not self.stopped.wait(0.05):
            total = 0
            for process in psutil.Process(self.process.pid).children(recursive=True):
                try:
                    total = max(total, process.memory_info().rss)
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> None:
        """Stop the server."""
        self.stopped.set()
        self.process.terminate()
        self.process.wait(30)


def worst_requests() -> Sequence[BadRequest]:
    """Return allowed requests of the largest number of pixels, rows and bytes, and refused ones of the same size."""
    side = int((MAX_REQUEST_PIXELS / 2) ** 0.5) - 1
    large = {kind: _encoded(side, kind, mode) for kind, mode in (("PNG", "RGBA"), ("WEBP", "RGBA"), ("JPEG", "RGB"))}
    half = MAX_BODY // 2
    pixels = json.dumps([[[0, 0, 0]] * 1000] * (half // 10_000), separators=(",", ":"))
    texts = {
        **{f"2 {kind}": json.dumps({"dataframe_records": [{"image": text}] * 2}) for kind, text in large.items()},
        "256 images": json.dumps({"dataframe_records": [{"image": _encoded(600, "PNG", "RGB")}] * MAX_ROWS}),
        "pixel values": f'{{"dataframe_records": [{{"image": {pixels}}}, {{"image": {pixels}}}]}}',
        "empty lists": '{"dataframe_records": [{"image": [' + ",".join(["[]"] * (half // 2)) + "]}]}",
        "empty objects": '{"dataframe_records": [' + ",".join(["{}"] * (MAX_BODY // 3 - 100)) + "]}",
        "nested": "[" * (MAX_BODY - 1),
    }  # fmt: skip
    return [BadRequest(name, text.encode()[:MAX_BODY], JSON) for name, text in texts.items()]


def _encoded(side: int, kind: str, mode: str) -> str:
    file = io.BytesIO()
    Image.new(mode, (side, side), tuple([90] * len(mode))).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def measure_server(server: Server, rounds: int) -> Outcome:
    """Let 8 clients send every request `rounds` times at once, and compare the peak memory with `BOUND`."""
    outcome = Outcome("server memory, 8 clients")
    watcher = threading.Thread(target=server.watch, daemon=True)
    watcher.start()
    for request in worst_requests():
        with ThreadPoolExecutor(CLIENTS) as clients:
            for answer in clients.map(server.send, [request] * CLIENTS * rounds):
                outcome.count(request.name, unclear=answer_is_unclear(answer))
        print(f"server: {request.name}: peak so far {server.peak / 1e9:.2f} GB", file=sys.stderr)
    outcome.remark = f"peak {server.peak / 1e9:.2f} GB, bound {BOUND / 1e9:.1f} GB"
    if server.peak > BOUND:
        outcome.count("memory", lost=outcome.remark)
    return outcome

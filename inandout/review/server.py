"""HTTP server of the review page."""

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from inandout.errors import InputError
from inandout.review.guard import Guard, is_loopback


def new_token(host: str) -> str:
    """Return a random token if other machines can reach `host`, otherwise an empty string."""
    return "" if is_loopback(host) else secrets.token_urlsafe(24)


def serve(app: ASGIApp, host: str, port: int, token: str, on_ready: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        app: application to serve, wrapped in `Guard`.
        host: address to listen on.
        port: port to listen on; 0 = any free port.
        token: see `Guard`.
        on_ready: called with the address of the page once the server listens.

    Raises:
        InputError: the port is in use, or the host is not an address of this machine.
    """
    listener = _listen(host, port)
    url_host = f"[{host}]" if ":" in host else host
    on_ready(f"http://{url_host}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else ""))
    config = uvicorn.Config(Guard(app, token), log_level="warning", access_log=False, server_header=False)
    try:
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    except (KeyboardInterrupt, SystemExit):
        return  # uvicorn raises the signal again after a clean shutdown
    finally:
        listener.close()


@contextmanager
def serve_in_thread(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve the page on 127.0.0.1 in a background thread and yield its address."""
    listener = _listen("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(Guard(app), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if os.name == "posix":  # on Windows the option would share a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"host = {host}, port = {port}: cannot listen ({error.strerror}); stop the process that uses the port, or "
            "give port=0 for any free port"
        ) from error
    return listener

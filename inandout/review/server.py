"""Running the page until someone stops it."""

import asyncio
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
    """A secret for a server that others can reach; none for one that only this machine can."""
    return "" if is_loopback(host) else secrets.token_urlsafe(24)


def serve(app: ASGIApp, host: str, port: int, token: str, on_ready: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        app: without its door; see `Guard`.
        host: address to listen on.
        port: 0 = any that is free.
        token: empty where only this machine can reach the server.
        on_ready: called with the address to open, when the server listens.

    Raises:
        InputError: the port is taken, or the host is none of this machine.
    """
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    on_ready(f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else ""))
    config = uvicorn.Config(Guard(app, token), log_level="warning", access_log=False, server_header=False)
    try:
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    except (KeyboardInterrupt, SystemExit):
        return  # the server has closed in order; uvicorn then raises the signal that it was stopped by once more
    finally:
        listener.close()


@contextmanager
def serve_in_thread(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve the page to this machine beside what the program does; the address to open."""
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
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"host = {host}, port = {port}: cannot be listened on ({error.strerror}); stop what uses the port, or give "
            "port=0 for any that is free"
        ) from error
    return listener

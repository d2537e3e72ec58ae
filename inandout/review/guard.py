"""ASGI middleware that checks host, origin, token and request size, and adds security headers."""

import ipaddress
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_REQUEST_BYTES = 64 * 1024
"""Maximum size of a request body; a decision has less than 2000 bytes."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_COOKIE = "inandout_review"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Middleware that refuses requests that do not come from the page itself."""

    def __init__(self, app: ASGIApp, token: str = ""):
        """Guard `app`.

        Args:
            app: the wrapped application.
            token: secret that a browser must send once as `/?token=...`; empty = accept only loopback host names, which
                prevents DNS rebinding.
        """
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or forward it and add headers to the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _HOST.fullmatch(host)
        if name is None or (not self._token and not is_loopback(name[1])):
            return _refuse(403, f"host {host!r} is not this machine; open http://127.0.0.1 with the port instead")
        if not _is_from_page(scope["method"], headers, host):
            return _refuse(403, "the request comes from another page; open the review page itself")
        if self._token and not self._has_valid_cookie(headers):
            return self._check_token(scope)
        return _check_size(scope["method"], headers)

    def _has_valid_cookie(self, headers: Headers) -> bool:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return morsel is not None and self._is_token(morsel.value)

    def _check_token(self, scope: Scope) -> Response:
        """Store a valid token of the query string in a cookie and redirect, which removes it from the address."""
        candidate = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] != "GET" or not self._is_token(candidate):
            return _refuse(401, "a token is required; open the address that the server printed when it started")
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
        return response

    def _is_token(self, candidate: str) -> bool:
        return secrets.compare_digest(candidate.encode(), self._token.encode())


def _is_from_page(method: str, headers: Headers, host: str) -> bool:
    """Return whether a request comes from the page; what can change something needs a proof, which browsers add."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return False
    if method in ("GET", "HEAD"):
        return True
    return site in (None, "same-origin") and (origin is not None or site == "same-origin")


def _check_size(method: str, headers: Headers) -> Response | None:
    if method in ("GET", "HEAD"):
        return None
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return _refuse(411, "the request has no Content-Length header; send one")
    if int(length) > MAX_REQUEST_BYTES:
        return _refuse(413, f"the request has {length} bytes; send at most {MAX_REQUEST_BYTES}")
    return None


def _refuse(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status_code=status)

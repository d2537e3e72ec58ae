"""What stands between the page's server and anyone else: hosts, origins, a token, sizes and headers."""

import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_REQUEST = 64 * 1024
"""Bytes that a request may carry; a decision has less than two thousand."""

_COOKIE = "inandout_review"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Refuses what does not come from the page itself, before it is looked at."""

    def __init__(self, app: ASGIApp, token: str = ""):
        """Guard `app`.

        Args:
            app: what to let through to.
            token: secret that a browser must have brought once, as `/?token=...`; empty = only this machine is let in,
                under a name of this machine, so that no web page can reach the server through a name of its own.
        """
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or let the request through and add headers to the answer."""
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
        origin = headers.get("origin")
        if not self._token and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return _say(403, f"{host!r} is no name of this machine; open http://127.0.0.1 with the port instead")
        if origin is not None and urlsplit(origin).netloc != host:
            return _say(403, "this request comes from another page; open the review page itself")
        if self._token and not self._brings_cookie(headers):
            return self._greet(scope)
        return _check_size(scope["method"], headers)

    def _brings_cookie(self, headers: Headers) -> bool:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return morsel is not None and self._is_token(morsel.value)

    def _greet(self, scope: Scope) -> Response:
        """A browser that brings the token in the address keeps it as a cookie, so that it leaves the address."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] != "GET" or not self._is_token(given):
            return _say(401, "a token is needed; open the address that the server printed when it started")
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
        return answer

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def _check_size(method: str, headers: Headers) -> Response | None:
    if method in ("GET", "HEAD"):
        return None
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return _say(411, "the length of the request is not given")
    if int(length) > LARGEST_REQUEST:
        return _say(413, f"{length} bytes were sent; at most {LARGEST_REQUEST} are taken")
    return None


def _say(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status_code=status)

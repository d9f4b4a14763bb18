"""What comes in from the network: closed routes, a size limit, whose session it is, security headers, plain pages.

An ASGI middleware in front of Gradio, which leaves routes open that a chat does not need (uploads, deep links that
write a conversation to disk, its API schema). Knows nothing of conversations.
"""

import re
import secrets
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from papers import Papers
from sentences import LANGUAGES, Language, preferred, say
from visits import Visits

MAX_BODY = 16_000_000  # bytes; the page posts its whole conversation, and a too long message must reach its sentence
COOKIE = "remanso"
CLOSED = re.compile(
    r"^/(gradio_api/(deep_link|upload|upload_progress|openapi\.json|proxy=|vibe|undo-vibe|runs|run-history|stream|"
    r"component_server|process_recording|file=|file/|custom_component|dev)|openapi\.json|monitoring|docs|redoc|svelte)"
)
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; script-src-attr 'none'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'none'; "
    "worker-src 'self' blob:; frame-ancestors {frames}"
)
HASH_IN_BODY = re.compile(rb'"session_hash"\s*:\s*"([^"]{1,200})"')


class Edge:
    """The middleware.

    `health` makes the answer of `GET /health`, `/embed.js` imports `embed`, `script` runs first in the page, and each
    of the `papers` stands at its name.
    """

    def __init__(  # noqa: PLR0913 - what the middleware is told, each by its name
        self,
        app: ASGIApp,
        *,
        visits: Visits,
        frames: str,
        default: Language,
        health: Callable[[], dict[str, Any]],
        embed: str,
        script: str,
        papers: Papers,
    ) -> None:
        self._app = app
        self._visits = visits
        self._default = default
        self._health = health
        self._embed = embed
        self._papers = papers
        self._script = f"<script>{script}</script>".encode()
        self._headers = [
            (b"content-security-policy", CSP.format(frames=frames).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == "/health":
            await JSONResponse(self._health())(scope, receive, self._dressed(send, ""))
        elif path == "/embed.js":
            # A fixed name for Gradio's web component, whose own changes with each version. Imported, not redirected
            # to: under two addresses the module would run twice.
            module = Response(f'import "./{self._embed}";', media_type="text/javascript")
            await module(scope, receive, self._dressed(send, ""))
        elif paper := self._papers.get((path.removeprefix("/"), language := self._language(request))):
            headers = {"content-language": language, "vary": "accept-language"}
            await HTMLResponse(paper, headers=headers)(scope, receive, self._dressed(send, ""))
        elif CLOSED.match(path) or b"deep_link" in scope["query_string"]:
            await Response("Not found", 404)(scope, receive, send)
        else:
            await self._pass(request, path, receive, send)

    async def _pass(self, request: HTTPConnection, path: str, receive: Receive, send: Send) -> None:
        scope, cookie = request.scope, _cookie(request)
        sessions = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
        opened = path.rsplit("/heartbeat/", maxsplit=1)[-1] if "/heartbeat/" in path else ""
        if scope["method"] == "POST":
            body = await _read(receive)
            if body is None:
                await self._refuse(request, 413, "body_too_large", receive, send)
                return
            receive = _replay(body, receive)
            sessions += [found.decode("utf-8", "replace") for found in HASH_IN_BODY.findall(body)]
        for session in {*sessions, opened} - {""}:
            if not self._visits.admit(session, cookie):
                await self._refuse(request, 403, "not_your_session", receive, send)
                return
        fresh = "" if cookie or scope["method"] != "GET" or path not in ("/", "/config") else _fresh(request)
        if scope["method"] == "GET" and path == "/":
            send = _inserting(self._script, send)
        if opened:
            self._visits.opened(opened)
        try:
            await self._app(scope, receive, self._dressed(send, fresh))
        finally:
            if opened:
                self._visits.closed(opened)

    async def _refuse(self, request: HTTPConnection, status: int, code: str, receive: Receive, send: Send) -> None:
        sentence = say(self._language(request), f"error.{code}")
        await JSONResponse({"detail": sentence}, status)(request.scope, receive, send)

    def _language(self, request: HTTPConnection) -> Language:
        """Returns the language that the address asks for, or else the browser."""
        wished = request.query_params.get("lang", "")
        heard = preferred(request.headers.get("accept-language"), self._default)
        return next((language for language in LANGUAGES if language == wished), heard)

    def _dressed(self, send: Send, cookie: str) -> Send:
        """Adds our headers to a response as it starts."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *self._headers]
                if cookie:
                    headers += [(b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")]
                message = {**message, "headers": headers}
            await send(message)

        return dressed


def _inserting(script: bytes, send: Send) -> Send:
    """Puts a script first in the HTML that passes: Gradio runs its own `head` only after it has started."""
    start: list[Message] = []

    async def inserting(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.append(message)
            return
        if start:
            before = message.get("body", b"")
            message = {**message, "body": before.replace(b"<head>", b"<head>" + script, 1)}
            longer = len(message["body"]) - len(before)
            headers = [
                (name, str(int(value) + longer).encode() if name == b"content-length" else value)
                for name, value in start[0]["headers"]
            ]
            await send({**start.pop(), "headers": headers})
        await send(message)

    return inserting


def _cookie(request: HTTPConnection) -> str:
    return request.cookies.get(COOKIE, "")


def _fresh(request: HTTPConnection) -> str:
    """Returns a Set-Cookie value; in someone else's frame a cookie is only kept when it is partitioned."""
    jar: SimpleCookie = SimpleCookie({COOKIE: secrets.token_urlsafe(24)})
    jar[COOKIE]["path"] = "/"
    jar[COOKIE]["httponly"] = True
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    return jar[COOKIE].OutputString() + ("; SameSite=None; Secure; Partitioned" if secure else "; SameSite=Lax")


async def _read(receive: Receive) -> bytes | None:
    """Returns the whole body, or nothing when it is larger than `MAX_BODY`."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that gives the body that was read, then what comes after it."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay

"""A stand-in of Hugging Face's OpenID provider, where whoever comes is logged in as one person at once."""

import json
import secrets
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from authlib.jose import JsonWebKey, jwt  # type: ignore[import-untyped]


class Provider:
    """Serves discovery, keys, consent and tokens on 127.0.0.1, while it is open.

    Attributes:
        person: the claims of who logs in next.
    """

    def __init__(self) -> None:
        self.person = {"sub": "6032802e1f993496bc14d9e3", "name": "Ana", "preferred_username": "ana"}
        self.person |= {"profile": "https://huggingface.co/ana", "picture": "https://huggingface.co/ana.png"}
        self.key = JsonWebKey.generate_key("RSA", 2048, is_private=True, options={"kid": "k"})
        self.nonces: dict[str, str | None] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                provider.get(self)

            def do_POST(self) -> None:
                provider.post(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def settings(self) -> dict[str, str]:
        """What a Space with `hf_oauth: true` finds in its environment."""
        return {
            "SYSTEM": "spaces",
            "SPACE_ID": "us/space",
            "OAUTH_CLIENT_ID": "client",
            "OAUTH_CLIENT_SECRET": "secret",
            "OAUTH_SCOPES": "openid profile",
            "OPENID_PROVIDER_URL": self.url,
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        address = urllib.parse.urlsplit(request.path)
        asked = dict(urllib.parse.parse_qsl(address.query))
        if address.path.endswith("openid-configuration"):
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "userinfo_endpoint": "userinfo"}
            found: Any = {name: f"{self.url}/oauth/{path}" for name, path in names.items()}
            answer(request, {**found, "issuer": self.url, "jwks_uri": f"{self.url}/jwks"})
        elif address.path == "/jwks":
            answer(request, {"keys": [self.key.as_dict(is_private=False)]})
        elif address.path == "/oauth/userinfo":
            answer(request, self.person)
        else:
            code = secrets.token_hex(8)
            self.nonces[code] = asked.get("nonce")
            words = urllib.parse.urlencode({"code": code, "state": asked["state"]})
            request.send_response(302)
            request.send_header(
                "Location", f"{asked['redirect_uri']}{'&' if '?' in asked['redirect_uri'] else '?'}{words}"
            )
            request.end_headers()

    def post(self, request: BaseHTTPRequestHandler) -> None:
        said = request.rfile.read(int(request.headers["Content-Length"])).decode()
        code, now = dict(urllib.parse.parse_qsl(said)).get("code", ""), int(time.time())
        claims = {"iss": self.url, "aud": "client", "iat": now, "exp": now + 600, "nonce": self.nonces.get(code)}
        token = jwt.encode({"alg": "RS256", "kid": "k"}, {**claims, **self.person}, self.key).decode()
        rest = {"token_type": "bearer", "expires_in": 28800, "scope": "openid profile", "id_token": token}
        answer(request, {"access_token": "hf_oauth_token", **rest})


def answer(request: BaseHTTPRequestHandler, found: dict[str, Any]) -> None:
    body = json.dumps(found).encode()
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)

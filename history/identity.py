"""Whose a conversation is: keys from which neither a secret nor a login can be told. Knows nothing of what is kept."""

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING

from errors import RemansoError

if TYPE_CHECKING:
    from config import Settings

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 random bits as URL-safe base64
SALT_CHARS = 32


def new_secret() -> str:
    """Returns a new secret for somebody's browser: 43 characters, 256 random bits."""
    return secrets.token_urlsafe(32)


def owner_key(salt: bytes, secret: str | None, login: str | None) -> str:
    """Returns HMAC-SHA256 of who somebody is, as 64 hexadecimal digits; a login counts before a secret.

    Raises:
        RemansoError: `history_key`: the secret is none.
    """
    if login:
        name = f"hf:{login}"
    elif isinstance(secret, str) and SECRET.fullmatch(secret):
        name = f"anon:{secret}"
    else:
        raise RemansoError("history_key")
    return hmac.new(salt, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def read_salt(settings: "Settings") -> bytes:
    """Returns `HISTORY_SALT`; without a history, any will do.

    Raises:
        SystemExit: it is too short to keep owners apart from guesses.
    """
    if settings.history_url and len(settings.history_salt) < SALT_CHARS:
        raise SystemExit(
            f"HISTORY_SALT has to be a secret of {SALT_CHARS} characters or more when HISTORY_URL is set: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    return settings.history_salt.encode() or secrets.token_bytes(32)

"""Texts at rest: sealed with a key of the operator's, or as they are. The cipher is `cryptography`'s Fernet.

A sealed text begins with a mark that no text of a person can begin with. Fernet is AES-128 in CBC mode with an
HMAC-SHA256 (https://github.com/fernet/spec). Knows nothing of whose text it is.
"""

from typing import TYPE_CHECKING

from errors import RemansoError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

MARK = "\x02fernet:"


class Cipher:
    """Seals with the first of the keys, and opens with any: a new key goes in front of the old ones.

    Args:
        keys: Fernet keys with commas between them, or nothing: texts then stay as they are.

    Raises:
        SystemExit: a key is none.
    """

    def __init__(self, keys: str) -> None:
        self._fernet = _fernet(keys) if keys.strip() else None

    def seal(self, text: str) -> str:
        text = text.lstrip(MARK[0])
        if not text or not self._fernet:
            return text
        return MARK + self._fernet.encrypt(text.encode()).decode("ascii")

    def open(self, text: str) -> str:
        """Returns the text as it was said.

        Raises:
            RemansoError: `history_locked`: it is sealed with a key that is not there.
        """
        if not text.startswith(MARK):
            return text
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - needed only where something is sealed

        try:
            if self._fernet:
                return self._fernet.decrypt(text.removeprefix(MARK)).decode()
        except InvalidToken:
            pass
        raise RemansoError("history_locked")


def _fernet(keys: str) -> "MultiFernet":
    try:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415
    except ImportError:
        raise SystemExit("HISTORY_KEY needs the package cryptography: pip install cryptography") from None
    try:
        return MultiFernet([Fernet(key.strip()) for key in keys.split(",") if key.strip()])
    except ValueError:
        raise SystemExit(
            "HISTORY_KEY is no Fernet key (32 bytes as URL-safe base64), nor several with commas"
        ) from None

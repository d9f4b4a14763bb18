"""What a person may be told when something goes wrong: one exception, by code.

A `RemansoError` carries a code that `locales/*.json` translates under `error.<code>`, and the values of its
sentence. It never carries a person's words. Any other exception is a bug and is reported as one.
"""

from typing import Any


class RemansoError(Exception):
    """An error that a person may see, in their language."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code, values)
        self.code = code
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from `args`; keyword values would be lost on the way out of a worker process.
        return _rebuild, (type(self), self.code, self.values)


class ModelError(RemansoError):
    """Raised when the model cannot be loaded or cannot go on."""


def _rebuild(kind: type[RemansoError], code: str, values: dict[str, Any]) -> RemansoError:
    return kind(code, **values)

"""Settings, read once from the environment, failing loudly. Knows nothing of what they are used for.

Every field is an environment variable of the same name in capitals (`MODEL_ID`, `MAX_NEW_TOKENS`…).
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sentences import Language

Quantization = Literal["none", "packed", "nf4", "int8"]
WARMTH, SMALL_WARMTH = 0.7, 0.3
EMBEDDED = "embedded"
EIGHT_B = "zementalist/llama-3-8B-chat-psychotherapist"


def user_cache() -> Path:
    """Returns the folder for what can be made again (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "remanso"


def user_state() -> Path:
    """Returns the folder for what must survive a restart (XDG base directory specification)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "remanso"


class Settings(BaseSettings):
    """What an operator can change; the README's table is checked against these fields."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    model_id: str = Field("", description="`embedded`, a Hub id or a folder; empty: the 8B with a GPU, else `embedded`")
    base_model_id: str = Field("", description="base under the adapter, when not the one that the adapter names")
    model_revision: str = Field("", description="commit of `MODEL_ID` on the Hub")
    base_model_revision: str = Field("", description="commit of the base on the Hub")
    quantization: Quantization | Literal[""] = Field(
        "", description="`nf4`, `int8`, `packed` (Gemma 3 on a CPU) or `none`; empty: `nf4` on CUDA, else `packed`"
    )
    device: str = Field("", description="`cpu` or `cuda`; empty: CUDA where there is one")
    hf_token: str = Field("", description="token for gated or private repositories", repr=False)
    cache_dir: Path = Field(default_factory=user_cache, description="folder for the converted embedded model")

    gradio_server_name: str = Field("127.0.0.1", description="address that the server listens on")
    gradio_server_port: int | None = Field(None, description="its port; empty: 7860, or the next free one")
    title: str = Field("", description="title of the page; empty: our own, in both languages")
    default_language: Language = Field("es", description="`es` or `en`, when the browser asks for neither")
    default_country: str = Field("", description="two letters; whose helplines are shown first")
    system_prompt: str = Field("", description="replaces our own system prompt, in every language")
    embed_origins: str = Field("*", description="sites that may frame the page; `*`: any, `none`: no one")

    temperature: float | None = Field(
        None, ge=0, le=2, description="sampling temperature, 0 is greedy; empty: 0.3 for the embedded model, else 0.7"
    )
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus of probability that is sampled from")
    repetition_penalty: float = Field(1.0, ge=1, le=2, description="1 is none")
    max_new_tokens: int = Field(256, ge=1, le=4096, description="longest reply before `Continuar`, in tokens")
    max_context_tokens: int = Field(4096, ge=256, description="context window used, at most the model's own")

    max_message_chars: int = Field(4000, ge=1, description="longest message, in characters")
    messages_per_minute: int = Field(20, ge=1, description="messages that one session may send in a minute")
    queue_size: int = Field(32, ge=1, description="people who may wait for the model at once")
    session_grace_seconds: float = Field(600, ge=0, description="how long a closed page's chat stays in memory")
    parallel_turns: int = Field(
        0,
        ge=0,
        description="replies at the same time, together above 1; 0: 8 of the embedded model and on ZeroGPU, else 1",
    )
    counters_file: Path | None = Field(None, description="JSON file for the anonymous counts; empty: memory only")

    history_url: str = Field("", description="where conversations are kept with consent; empty: nowhere", repr=False)
    history_salt: str = Field("", description="secret that makes whose they are unreadable; 32 characters", repr=False)
    history_key: str = Field("", description="Fernet key, or several with commas, that seals what was said", repr=False)
    history_days: int = Field(365, ge=0, description="days that a conversation is kept after its last change; 0: all")
    history_journal: Path = Field(
        default_factory=lambda: user_state() / "journal", description="local folder for what is not stored yet"
    )
    history_commit_seconds: float = Field(300, ge=0, description="least seconds between two commits to a dataset")

    def warmth(self, *, small: bool) -> float:
        """Returns the sampling temperature: a small model makes more sense when it says what is likeliest."""
        return self.temperature if self.temperature is not None else SMALL_WARMTH if small else WARMTH

    @property
    def frame_ancestors(self) -> str:
        """The CSP's `frame-ancestors` value."""
        return {"*": "*", "none": "'none'"}.get(self.embed_origins, f"'self' {self.embed_origins}")


def read_settings() -> Settings:
    """Reads the environment.

    Raises:
        SystemExit: a value is wrong; the message names each variable and its value.
    """
    try:
        return Settings()
    except ValidationError as problem:
        lines = [f"{error['loc'][0]}".upper() + f"={error['input']!r}: {error['msg']}" for error in problem.errors()]
        raise SystemExit("Wrong settings:\n" + "\n".join(lines)) from None

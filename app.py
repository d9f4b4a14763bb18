"""Serves the page: the process that `make run` and a Space start. What is on the page stands in `page.py`."""

import json
import logging
import os
import secrets
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import spaces  # noqa: F401 - on ZeroGPU it patches CUDA, and must come before torch

# isort: split
import gradio as gr
from starlette.middleware import Middleware

import safety
from chat import Chat
from config import Settings, read_settings
from edge import Edge
from history import Archive
from keeping import Keeping
from model import load, zerogpu
from model.host import Host
from model.loader import turns
from page import Page
from papers import papers
from sentences import LANGUAGES, catalogue
from visits import Visits

HERE = Path(__file__).parent / "assets"
GRADIO = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
# What the page's script writes or translates; the rest of the catalogue is said by the server alone.
SAID_BY_SCRIPT = (
    "page.", "kept.", "error.history_", "safety.aid.", "safety.calm.", "safety.country.", "safety.leave",
    "safety.card.now.", "safety.card.near.",
)  # fmt: skip
BOOT = secrets.token_hex(8)  # tells an open page that the server it knew is gone
SCRIPTS, STYLES = ("leave.js", "page.js", "calm.js", "aid.js"), ("page.css", "calm.css")
KEPT_SCRIPT, KEPT_STYLE = "keeping.js", "keeping.css"  # where `HISTORY_URL` is set
END_SECONDS = 8.0  # for what is not stored yet; a container is killed ten seconds after it was asked to end
MAX_THREADS = 256  # Gradio's own 40 would also bound how many replies stream at once


def head(root: str = "./", *, kept: bool = False) -> str:
    """Returns the page's script, with that of what is kept or without it."""
    core = next(GRADIO.glob("core-*.js")).name
    page_words = {
        language: {key: text for key, text in catalogue(language).items() if key.startswith(SAID_BY_SCRIPT)}
        for language in LANGUAGES
    }
    values = {
        "__CATALOGUE__": json.dumps(page_words, ensure_ascii=False).replace("<", "\\u003c"),
        "__CORE_MODULE__": f"{root}assets/{core}",
        "__ROOT__": root,
        "__COUNTRIES__": json.dumps(safety.countries()),
    }
    return f"<script>{_scripts(values, *SCRIPTS, *[KEPT_SCRIPT] * kept)}</script>"


def _scripts(values: dict[str, str], *names: str) -> str:
    text = "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def health(host: Host) -> dict[str, Any]:
    """Returns whether the model answers, and this process's id."""
    state = "ready" if host.model else "failed" if host.error else "loading"
    return {"status": "ok", "model": state, "boot": BOOT, **({"error": host.error.code} if host.error else {})}


def serve(settings: Settings, archive: Archive, host: Host | None = None) -> tuple[Page, str]:
    """Starts the server and the loading of the model, and returns the page and its address at once.

    Raises:
        OSError: the port is taken.
    """
    settings = settings.model_copy(update={"parallel_turns": turns(settings)})
    host = host or Host(lambda progress: load(settings, progress), own_thread=not zerogpu.ON)
    if zerogpu.ON:
        host.load()  # before the launch, which packs the weights, and in the main thread, whose CUDA is emulated
    chat = Chat(settings, host)
    visits = Visits(settings.session_grace_seconds)
    page = Page(chat, settings, visits, Keeping(chat, archive))
    page.blocks.queue(default_concurrency_limit=None, max_size=settings.queue_size * 8)
    _, address, _ = page.blocks.launch(
        server_name=settings.gradio_server_name,
        server_port=settings.gradio_server_port,  # a given port that is taken is an error: Gradio takes the next one
        prevent_thread_lock=True,
        quiet=True,
        max_threads=MAX_THREADS,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size=1,
        mcp_server=False,
        i18n=page.words,
        head=head(kept=archive.enabled),
        css_paths=[HERE / name for name in (*STYLES, *[KEPT_STYLE] * archive.enabled)],
        favicon_path=HERE / "favicon.svg",
        theme=gr.themes.Soft(primary_hue="teal", neutral_hue="slate").set(
            button_secondary_background_fill_hover_dark="*primary_800"  # theirs is too light for its white words
        ),
        app_kwargs={
            "middleware": [
                Middleware(
                    Edge,
                    visits=visits,
                    frames=settings.frame_ancestors,
                    default=settings.default_language,
                    health=lambda: health(host),
                    script=_scripts({"__DEFAULT_LANGUAGE__": settings.default_language}, "where.js", "head.js"),
                    papers=papers(settings),
                    embed=f"assets/{next(GRADIO.glob('index-*.js')).name}",
                )
            ],
            "openapi_url": None,
            "docs_url": None,
            "redoc_url": None,
        },
    )
    visits.sweep(page.forget)
    host.start()
    return page, address


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for noisy in ("httpx", "httpx2", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)  # their lines hold session hashes
    settings = read_settings()
    archive = Archive(settings)
    with archive.serving(END_SECONDS) if archive.enabled else nullcontext():
        try:
            page, address = serve(settings, archive)
        except OSError as problem:
            sys.exit(f"The server cannot start: {problem}")
        print(f"\n  Remanso: {address}\n", flush=True)
        if zerogpu.ON and not page.chat.host.model:
            page.chat.host.work()  # what failed is tried again, in the one thread that can place weights there
        page.blocks.block_thread()


if __name__ == "__main__":
    main()

"""The usual chat Space, as a peer: `generate` in a thread with `TextIteratorStreamer`, the whole text at each yield.

python -m benchmarks.template PORT NEW_TOKENS    # the embedded model with its adapter, in bf16
"""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch
from transformers import TextIteratorStreamer

from config import EMBEDDED, Settings
from history import Message
from model import load
from model.prompt import encode
from sentences import say


def main() -> None:
    port, new_tokens = (int(word) for word in sys.argv[1:3])
    loaded = load(Settings(model_id=EMBEDDED, quantization="none"))
    model, tokenizer = loaded._model, loaded._tokenizer
    options: dict[str, Any] = {"do_sample": True, "temperature": 0.3, "top_p": 0.9, "max_new_tokens": new_tokens}

    def reply(words: str, _history: list[Any]) -> Iterator[str]:
        ids = torch.tensor([encode(tokenizer, [Message("system", say("es", "model.system")), Message("user", words)])])
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "streamer": streamer, **options}
        threading.Thread(target=model.generate, kwargs=given).start()
        text = ""
        for piece in streamer:
            text += piece
            yield text

    gr.ChatInterface(reply, api_name="chat").launch(server_name="127.0.0.1", server_port=port, quiet=True)


if __name__ == "__main__":
    main()

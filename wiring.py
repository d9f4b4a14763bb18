"""The events that Gradio's chat interface wires for itself: which they are, and what of them is changed.

Gradio has no public handle to them: they are found by what they do, and the page's tests see each of them at work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.events import Dependency

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "undocumented"}


@dataclass(frozen=True)
class Wiring:
    """The events of a chat interface within its page."""

    blocks: gr.Blocks
    interface: gr.ChatInterface

    def replies(self) -> list[Dependency]:
        """Returns the events that stream a reply."""
        return [_chained(fn) for fn in self._named("_submit_fn")]

    def undos(self) -> list[Dependency]:
        """Returns the event that takes the last turn back; the others of its name begin a retry."""
        return [_chained(fn) for fn in self._named("_pop_last_user_message") if self.interface.chatbot in fn.outputs]

    def copy_with(self, copied: Callable[..., Any]) -> None:
        """Lets `copied` say what is written down of the bubbles after each event, for the next message to post.

        Gradio writes a second copy whose every change goes back to the page, for programs that set it. Nothing here
        does, and a late one brought bubbles back that had been cleared meanwhile: that way back is taken out.
        """
        ours, fns = self.interface, self.blocks.fns
        back = {number for number, fn in fns.items() if (ours.chatbot_value._id, "change") in fn.targets}
        back |= {number for number, fn in fns.items() if fn.trigger_after in back}
        for number in back:
            del fns[number]
        for fn in fns.values():
            if fn.outputs == [ours.chatbot_state, ours.chatbot_value]:
                fn.fn, fn.outputs = copied, [ours.chatbot_state]

    def recover(self, box_back: Callable[[], Any], copied: Callable[..., Any]) -> None:
        """Gives the box back after an event that failed.

        In Gradio 6 `.then` does not run after a failure, and the interface re-enables its box with `.then`: without
        this, one failed event (a full queue, a lost connection) would close the page for good.
        """
        ours = self.interface
        for reply in self.replies():
            reply.then(box_back, None, [ours.textbox], **QUIET)
            reply.failure(box_back, None, [ours.textbox], **QUIET)
            reply.failure(copied, [ours.chatbot], [ours.chatbot_state], **QUIET)

    def _named(self, name: str) -> list[BlockFunction]:
        return [fn for fn in self.blocks.fns.values() if getattr(fn.fn, "__name__", "") == name]


def _chained(fn: BlockFunction) -> Dependency:
    return Dependency(None, fn.get_config(), fn._id, fn.fn)

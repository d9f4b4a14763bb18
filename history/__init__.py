"""Conversations: as values, and as what a person may keep, find again, take along and delete.

`conversation.py` holds the values and needs nothing else; `archive.py` is what the page and the endpoints talk to.
"""

from history.archive import Archive, Consent
from history.conversation import Conversation, Finish, Message, Role, fit, from_json, to_json, to_markdown
from history.eraser import Receipt
from history.sealing import Summary
from history.stores import Store, open_store
from history.transfer import Parcel, Rating, unpack

__all__ = [
    "Archive",
    "Consent",
    "Conversation",
    "Finish",
    "Message",
    "Parcel",
    "Rating",
    "Receipt",
    "Role",
    "Store",
    "Summary",
    "fit",
    "from_json",
    "open_store",
    "to_json",
    "to_markdown",
    "unpack",
]

"""Safety: how much risk a message shows, the help that code puts on the page, and what the model may not write.

`risk` reads, `helplines` looks up, `card` writes, `guard` filters; none of them knows the model or the page.
"""

from safety.card import card, help_panel
from safety.guard import guard
from safety.helplines import Helpline, countries, countries_by_name, emergency, helplines
from safety.risk import Assessment, Category, Level, assess

__all__ = [
    "Assessment",
    "Category",
    "Helpline",
    "Level",
    "assess",
    "card",
    "countries",
    "countries_by_name",
    "emergency",
    "guard",
    "help_panel",
    "helplines",
]

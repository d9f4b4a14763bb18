"""Safety: how much risk a message shows, the help that code puts on the page, and what the model may not write.

`risk` and `medicine` read, `helplines` looks up, `card` writes, `guard` filters; none knows the model or the page.
"""

from safety.card import VARIANTS, card, card_in, countries_by_name, emergency_line, help_panel, moved, part_key
from safety.guard import guard
from safety.helplines import Helpline, countries, emergency, helplines
from safety.medicine import asks_about_medicine
from safety.risk import Assessment, Category, Level, assess

__all__ = [
    "VARIANTS",
    "Assessment",
    "Category",
    "Helpline",
    "Level",
    "asks_about_medicine",
    "assess",
    "card",
    "card_in",
    "countries",
    "countries_by_name",
    "emergency",
    "emergency_line",
    "guard",
    "help_panel",
    "helplines",
    "moved",
    "part_key",
]

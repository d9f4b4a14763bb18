"""Dialogues as data: what is wrong with a file of them, and a file mended. `python -m demo.data --help`.

`text` compares, `rules` is what a reply may not say, `check` finds faults, `repair` mends. None knows a model.
"""

from demo.data.check import Finding, check, summary
from demo.data.repair import Mend, repair

__all__ = ["Finding", "Mend", "check", "repair", "summary"]

"""Dialogues as data: what is wrong with a file of them, and a file mended. `python -m demo.data --help`.

`text` compares, `rules` is what a reply may not say, `check` finds faults, `repair` mends. None knows a model.
"""

from pathlib import Path

from demo.data.check import Finding, check, summary
from demo.data.repair import Mend, repair

# In the order in which the adapter learned them.
OURS = [Path(__file__).parent.parent / f"{name}.jsonl" for name in ("dialogues", "plain", "simple", "turns", "echoes")]

__all__ = ["OURS", "Finding", "Mend", "check", "repair", "summary"]

"""Checks or mends files of dialogues.

    python -m demo.data --check                     # our own dialogues; exit status 1 when there are errors
    python -m demo.data --check a.jsonl b.jsonl     # of several files together
    python -m demo.data --repair good.jsonl bad.json

Prints ids and rules, and no words of a person.
"""

import argparse
import sys
from pathlib import Path

from demo.data import OURS, check, repair, summary


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=OURS, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="report what is wrong; done when nothing else is asked")
    parser.add_argument("--repair", type=Path, metavar="OUT", help="write the one FILE, mended, to OUT")
    options = parser.parse_args()
    if options.repair and len(options.files) != 1:
        parser.error("--repair takes one FILE")
    return options


def main() -> int:
    options = arguments()
    files = options.files
    if options.repair:
        data, mends = repair(files[0].read_bytes())
        options.repair.write_bytes(data)
        print("\n".join(f"{files[0].name}:{mend.place}: {mend.what}" for mend in mends) or "nothing to mend")
        if not options.check:
            return 0
        files = [options.repair]
    lines = [line for file in files for line in file.read_text(encoding="utf-8", errors="replace").split("\n")]
    findings = check(lines)
    print(summary(lines, findings))
    return int(any(finding.level == "error" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())

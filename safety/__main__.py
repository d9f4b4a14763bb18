"""`python -m safety < cases.jsonl > levels.jsonl`: the level of each case, a line of {"id", "text", "history"} each."""

import json
import sys

from safety import assess

for line in sys.stdin:
    if line.strip():
        case = json.loads(line)
        level = assess([*case.get("history", []), case["text"]]).level
        print(json.dumps({"id": case["id"], "level": level}, ensure_ascii=False))

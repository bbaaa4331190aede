"""What a workflow leaves, comparable between runs: not a test itself."""

import re
from pathlib import Path

_WITH_TIMES = {"stage.json", ".lock", ".writer-lock", "metrics.jsonl", "result.json"}
_FACTS = b"Wall time|Steps per second|Clips per second|Restarts|Goodput|Data read[^<]*|Last written"
_TIMES = re.compile(rb'"created": "[^"]*"|<div><dt>(?:' + _FACTS + rb")</dt><dd>[^<]*</dd></div>")


def artefacts(root: Path) -> dict[str, bytes]:
    """Every file of a workflow by name, without times and what a restart reads again."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        state = path.parent.parent.name == "checkpoints" and path.suffix == ".json"  # has the seconds of training
        if path.is_file() and path.name not in _WITH_TIMES and "attempts" not in name.parts and not state:
            found[str(name)] = _TIMES.sub(b"", path.read_bytes())
    return found

"""How soon a new process has read one text: `vadv predict` and the Hugging Face pipeline, on one exported student."""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Row, alternate, ratio_of_medians
from predict import make_student, minilm

PIPELINE = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1], device="cpu")("a fine film"))
"""


def measure(quick: bool) -> list[Row]:
    """Time whole processes in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "student")
        make_student(Path(folder), minilm(), "cls")
        commands = {
            "vadv": [sys.executable, "-m", "vadv_dist.cli", "predict", folder, "--text", "a fine film"],
            "pipeline": [sys.executable, "-c", PIPELINE, folder],
        }
        seconds = alternate(
            {
                name: lambda command=command: subprocess.run(command, check=True, capture_output=True)
                for name, command in commands.items()
            },
            3 if quick else 9,
        )
    ours, theirs = sorted(seconds["vadv"]), sorted(seconds["pipeline"])
    return [
        Row(
            "a new process of vadv predict, one text",
            'a new process of pipeline("text-classification")',
            ratio_of_medians(ours, theirs),
            1.0,
            "at most",
            f"{ours[len(ours) // 2]:.1f} against {theirs[len(theirs) // 2]:.1f} s",
        )
    ]

"""How often Python looks for garbage while a process starts.

Imports of torch, transformers and DeepSpeed make a great many objects and no garbage; looking through them again and
again slows a command's start, and once more its end (`python benchmarks/run.py --only start`).
"""

import gc

_usual: tuple[int, int, int] | None = None  # the thresholds that a starting process had


def collect_rarely() -> None:
    """Look for garbage rarely, until `collect_as_usual`; to be called before what is heavy is imported."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(50_000, 10, 10)


def collect_as_usual() -> None:
    """End what `collect_rarely` began; without that call, do nothing."""
    global _usual
    if _usual is not None:
        gc.set_threshold(*_usual)
        _usual = None


def collect_no_more() -> None:
    """Look for no garbage in what is there: the process ends, and gives back its memory anyway."""
    gc.freeze()

"""How often Python looks for garbage while a process starts.

Imports of torch, transformers and DeepSpeed make a million objects and no garbage; looking through them again and again
is a fifth of a command's start, and once more most of its end.
"""

import gc

_usual: tuple[int, int, int] | None = None  # the thresholds that a starting process had


def collect_rarely() -> None:
    """Look for garbage rarely, until `collect_as_usual`; to be called before what is heavy is imported."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(50_000, 20, 100)


def collect_as_usual() -> None:
    """End what `collect_rarely` began, and look no more at what is there; without that call, do nothing."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None

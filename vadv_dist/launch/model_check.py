"""Check a run's model before the run, for `vadv doctor`."""

from vadv_dist.config import Config
from vadv_dist.engines.distributed import choose_device
from vadv_dist.errors import VadvError
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits


def try_model(config: Config) -> bool:
    """Build the model with its weights and check it, as a run does before its first step.

    Returns:
        False if the data cannot be used, since the model depends on its features.
    Raises:
        VadvError: see `tasks.build` and `Task.check`.
    """
    try:
        sources = Splits.open(config).train.sources
    except (VadvError, OSError):
        return False
    build(config, sources).check(choose_device(config.trainer.use_gpu))
    return True

"""Whether the model of a run is sound, for whoever asks before the run: `vadv doctor`."""

from vadv_dist.config import Config
from vadv_dist.engines.distributed import choose_device
from vadv_dist.errors import VadvError
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits


def try_model(config: Config) -> bool:
    """Build the model with its weights and check it, as a run does before its first step.

    Returns:
        False where the data, whose features the model depends on, cannot be used.
    Raises:
        VadvError: as `tasks.build` and `Task.check`.
    """
    try:
        sources = Splits.open(config).train.sources
    except (VadvError, OSError):
        return False
    build(config, sources).check(choose_device(config.trainer.use_gpu))
    return True

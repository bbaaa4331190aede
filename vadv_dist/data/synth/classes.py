"""Classes of synthetic sentiment: the label range [-3, 3] cut into intervals of equal width."""

import numpy as np
import numpy.typing as npt

from vadv_dist.data.schema import LabelSpec
from vadv_dist.errors import UserError

_LOW, _HIGH = -3.0, 3.0
_MAX_CLASSES = 7
_NAMES = {2: ("negative", "positive"), 3: ("negative", "neutral", "positive")}


def class_spec(num_classes: int) -> LabelSpec:
    """The labels of a data set with classes, lowest sentiment first.

    Raises:
        UserError: there are fewer than 2 classes, or more than the label's range has room for.
    """
    if not 2 <= num_classes <= _MAX_CLASSES:
        raise UserError(f"--classes is {num_classes}, expected a number from 2 to {_MAX_CLASSES} for sentiment.")
    names = _NAMES.get(num_classes) or tuple(f"level {number + 1}" for number in range(num_classes))
    return LabelSpec.of_classes(num_classes, names)


def classes_of(label: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int64]:
    """Class of labels in [-3, 3]; a bound belongs to the class above it, so that of two classes zero is positive."""
    place = (np.asarray(label, np.float64) - _LOW) / (_HIGH - _LOW) * num_classes
    # A label is a mean of five integers, so one at a bound may be rounded to below it.
    return np.clip(np.floor(place + 1e-9), 0, num_classes - 1).astype(np.int64)

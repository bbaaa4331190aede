"""Names of our metrics on the Hugging Face Hub, where results of models are compared by them."""

_NAMES = {"mae": "mae", "corr": "pearsonr", "f1": "f1", "map": "mean_average_precision"}


def hub_name(key: str) -> str:
    """The Hub's identifier of a metric.

    Args:
        key: `Metric.key`, which starts with the kind of metric, such as `f1_has0`. Other kinds are accuracies.
    """
    return _NAMES.get(key.split("_")[0], "accuracy")

"""Where a command's answer goes: JSON or a table on standard output, progress on standard error."""

from typing import Any

from vadv_dist.runtime.terminal import console, json_line, visible

__all__ = ["console", "print_config", "print_json"]


def print_json(value: object) -> None:
    """Print one JSON object in one line."""
    print(json_line(value))


def print_config(config: Any) -> None:
    """Print a configuration as YAML that gives it back exactly."""
    import yaml

    from vadv_dist.config import config_to_dict, config_to_yaml

    text = config_to_yaml(config)
    if visible(text) != text:  # characters that a terminal would obey, which YAML can also write as escapes
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False)
    print(text, end="")

"""Print a command's result on standard output, as JSON or a table; progress goes to standard error."""

from typing import Any

from vadv_dist.runtime.terminal import console, json_line, visible

__all__ = ["console", "print_config", "print_json"]


def print_json(value: object) -> None:
    """Print a JSON value on one line."""
    print(json_line(value))


def print_config(config: Any) -> None:
    """Print a configuration as YAML that loads as the same configuration."""
    import yaml

    from vadv_dist.config import config_to_dict, config_to_yaml

    text = config_to_yaml(config)
    if visible(text) != text:  # has terminal control characters: dump it again with YAML's escapes
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False)
    print(text, end="")

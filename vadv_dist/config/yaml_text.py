"""Parse YAML with bounds on its size.

Ten lines of YAML can expand to billions of values through aliases and merge keys, so aliases are counted at their
expanded size before anything is built. Duplicate keys are rejected; PyYAML silently keeps the last.
"""

from typing import Any

import yaml

from vadv_dist.errors import UserError

MAX_BYTES = 4 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 50
# Python rejects longer decimal numbers; YAML's sexagesimal ones would take minutes.
_MAX_NUMBER_CHARACTERS = 400


def parse_yaml(text: str, where: object) -> Any:
    """Read one YAML document.

    Args:
        text: the document.
        where: the file, for messages.

    Returns:
        None, booleans, numbers, strings, dates, and lists, sets and dictionaries of them.

    Raises:
        UserError: not YAML, a tag that names a class, a duplicate key, or more than `MAX_BYTES`, `MAX_VALUES` (aliases
            expanded) or `MAX_DEPTH`.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{where} has more than {MAX_BYTES:,} characters of YAML. Use a smaller file.")
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except _RefusedError as error:
        raise UserError(f"{where} {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise UserError(f"{where} is not YAML{at}: {' '.join((error.problem or str(error)).split())}.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: invalid dates or base64
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}.") from None


class _RefusedError(Exception):
    """The document is rejected, with the reason."""


class _Loader(yaml.SafeLoader):
    """Counts the values of a document while composing it, and rejects duplicate keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._composed = 0
        self._measures: dict[int, tuple[int, int]] = {}  # (values, depth) of each complete node, aliases expanded

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, or look up the one that an alias refers to."""
        alias = self.check_event(yaml.AliasEvent)
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # untyped in PyYAML's stubs
        if self._depth >= MAX_DEPTH:
            raise _RefusedError(f"line {line} is nested more than {MAX_DEPTH} levels deep. Reduce the nesting.")
        self._composed += 1
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not alias:
            self._measures[id(node)] = self._measure(node, line)
        elif id(node) not in self._measures:
            raise _RefusedError(f"line {line} has an alias to a value that contains it. Write out the value.")
        if self._composed > MAX_VALUES:
            raise self._too_many(line)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping and check that its keys are unique."""
        node = super().compose_mapping_node(anchor)
        line_of: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # rejected when it is constructed
            merge = key.tag == "tag:yaml.org,2002:merge"
            name, line = "<<" if merge else self.construct_object(key), key.start_mark.line + 1
            if name in line_of:
                raise _RefusedError(
                    f"line {line} repeats the key {key.value[:80]!r} of line {line_of[name]}. Keep one of them."
                )
            line_of[name] = line
        return node

    def construct_yaml_int(self, node: Any) -> int:
        return int(super().construct_yaml_int(self._short(node)))

    def construct_yaml_float(self, node: Any) -> float:
        return float(super().construct_yaml_float(self._short(node)))

    def _measure(self, node: Any, line: int) -> tuple[int, int]:
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
        measures = [self._measures[id(part)] for part in parts]
        values = 1 + sum(count for count, _ in measures)
        depth = 1 + max((deep for _, deep in measures), default=0)
        if values > MAX_VALUES:
            raise self._too_many(line)
        if depth > MAX_DEPTH:
            raise _RefusedError(
                f"line {line} is nested more than {MAX_DEPTH} levels deep by its aliases. Reduce the nesting."
            )
        return values, depth

    def _too_many(self, line: int) -> _RefusedError:
        return _RefusedError(
            f"line {line} expands to more than {MAX_VALUES:,} values, aliases included. Use a smaller file."
        )

    def _short(self, node: Any) -> Any:
        if len(str(node.value)) > _MAX_NUMBER_CHARACTERS:
            line = node.start_mark.line + 1
            raise _RefusedError(f"line {line} has a number of {len(node.value):,} characters. Use a shorter one.")
        return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)

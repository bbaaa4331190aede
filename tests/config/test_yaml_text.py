"""YAML is bounded in size, and keys are unique."""

from pathlib import Path

import pytest
import yaml

from tests.limited import refused
from vadv_dist.config import load_config
from vadv_dist.config.yaml_text import MAX_DEPTH, MAX_VALUES, parse_yaml
from vadv_dist.errors import UserError


def bomb(levels: int = 10, merge: bool = False) -> str:
    """Ten lines that expand to ten to the tenth values."""
    if merge:
        first, before, after = "a0: &a0 {k: 1}", "{<<: [", "]}"
    else:
        first, before, after = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]", "[", "]"
    later = (f"a{n}: &a{n} {before}{', '.join([f'*a{n - 1}'] * 10)}{after}" for n in range(1, levels))
    return "\n".join([first, *later])


def refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "some.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [1, 2.5, true, null, x]\nc: {d: {e: 2020-01-01}}",
        "base: &base {x: 1, y: 2}\nother:\n  <<: *base\n  y: 3",
        "one: &a [1, 2]\ntwo: *a\nthree: *a",
        "- 0x1f\n- 1_000\n- 1:30\n- .inf\n- 1e3\n- 1.5e+3",
        "1: a\n'1': b\n1.5: c",
        "",
        "text: |\n  many\n  lines",
    ],
)
def test_ordinary_documents_parse_as_in_pyyaml(text: str) -> None:
    assert parse_yaml(text, "some.yaml") == yaml.safe_load(text)


@pytest.mark.parametrize("merge", [False, True])
def test_aliases_count_at_their_expanded_size(merge: bool) -> None:
    assert "expands to more than 100,000 values" in refusal(bomb(merge=merge))


def test_number_of_values_is_bounded() -> None:
    assert len(parse_yaml(f"[{'1,' * (MAX_VALUES - 2)}]", "x")) == MAX_VALUES - 2
    assert "expands to more than" in refusal(f"[{'1,' * (MAX_VALUES + 1)}]")


@pytest.mark.parametrize("signs", ["[]", "{}"])
def test_nesting_is_bounded(signs: str) -> None:
    assert parse_yaml(signs[0] * MAX_DEPTH + signs[1] * MAX_DEPTH if signs == "[]" else "{a: {}}", "x") is not None
    assert "nested more than 50 levels deep" in refusal(signs[0] * 20_000)
    assert "nested more than 50 levels deep" in refusal("\n".join(f"{' ' * n}a:" for n in range(200)))


def test_nesting_by_aliases_is_bounded() -> None:
    chain = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200))])
    assert "nested more than 50 levels deep by its aliases" in refusal(chain)


def test_recursive_alias_is_rejected() -> None:
    assert "alias to a value that contains it" in refusal("a: &a [1, *a]")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3", ("line 3", "line 1")),
        ("s:\n  epochs: 1\n  epochs: 1", ("line 3", "line 2")),
        ("{a: 1, 'a': 2}", ("line 1", "line 1")),
        ("1: x\n0x1: y", ("line 2", "line 1")),
        ("b: &b {x: 1}\nc: {<<: *b, <<: *b}", ("line 2", "line 2")),
        ("l:\n- {k: 1}\n- {k: 1, k: 1}", ("line 3", "line 3")),
    ],
)
def test_duplicate_key_is_rejected_with_both_lines(text: str, lines: tuple[str, str]) -> None:
    message = refusal(text)
    assert f"some.yaml {lines[0]} repeats the key" in message
    assert f"of {lines[1]}. " in message


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [id]",
        "a: 2020-99-99",
        "a: !!binary a",
        "? [1, 2]\n: x",
        "a: 1\n---\nb: 2",
        "a: *nothing",
        f"a: {'9' * 5000}",
        f"a: {':'.join(['59'] * 200_000)}",
        f"a: 1.{'5' * 5000}",
        "a: [",
        "a: \x00",
    ],
)
def test_anything_but_plain_yaml_is_a_user_error(text: str) -> None:
    assert refusal(text).startswith("some.yaml ")


def test_config_with_a_duplicate_key_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("trainer:\n  epochs: 3\n  seed: 1\n  epochs: 30\n")
    with pytest.raises(UserError, match=r"run\.yaml line 4 repeats the key 'epochs' of line 2\."):
        load_config(path)


@pytest.mark.parametrize("text", [bomb(), bomb(merge=True), "[" * 20_000, f"run: {{name: {'a' * (5 << 20)}}}"])
def test_commands_reject_yaml_bombs_within_a_gigabyte_of_memory(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    assert "bomb.yaml" in refused("train", "--config", path, "--print_config")

"""Passwords in a storage URL never appear in messages."""

import pytest

from vadv_dist.config.storage_url import passwords, require_sound, resolve, shown, without_secrets
from vadv_dist.errors import UserError
from vadv_dist.tuning.space_file import load_search


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://me:secret@host/db",
        "postgresql+psycopg://me:secret@host:5432/db?sslmode=require",
        "postgresql+psycopg://:secret@host/db",
        "postgresql+psycopg://me:secret/with@signs#@host/db",
        "postgresql+psycopg://host/db?user=me&password=secret",
        "postgresql+psycopg://me:$PART-secret@host/db",
        "mysql://me:secret@host/db",
    ],
)
def test_url_with_a_password_is_rejected_without_repeating_it(address: str) -> None:
    with pytest.raises(UserError, match=r"contains a password.*\$VADV_STUDY") as refused:
        require_sound(address)
    assert "secret" not in str(refused.value)
    assert "secret" not in shown(address)
    assert "secret" not in without_secrets(f"no {address} with {passwords(address)}", address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "$VADV_STUDY",
            "${VADV_STUDY}",
            "postgresql+psycopg://me:$PASSWORD@host/db",
            "postgresql+psycopg://me@host/db",
        ),
        *("postgresql+psycopg://host:5432/db", "sqlite:////a/b@c:d/study.db", "/a/b/study.log", "$FOLDER/study.log"),
    ],
)
def test_url_without_a_password_is_accepted_and_shown(address: str) -> None:
    require_sound(address)
    assert without_secrets(f"at {address}", address) == f"at {shown(address)}"


def test_passwords_are_found_escaped_and_unescaped() -> None:
    assert passwords("postgresql://me:a%40b@host/db") == ["a%40b", "a@b"]
    assert without_secrets("no user me with a@b", "postgresql://me:a%40b@host/db") == "no user me with ***"


def test_invalid_url_is_not_repeated_if_it_may_contain_a_password() -> None:
    with pytest.raises(UserError, match=r"search\.storage is not a valid URL, expected an RDB URL") as refused:
        require_sound("me:secret@host/db")
    assert "secret" not in str(refused.value)
    with pytest.raises(UserError, match=r"search\.storage is study\.db, expected"):
        require_sound("study.db")


def test_variables_in_a_url_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "se$cret")
    assert resolve("postgresql://me:$PASSWORD@host/db") == "postgresql://me:se$cret@host/db"
    with pytest.raises(UserError, match=r"search\.storage is .*, but the environment variable 'HOST_OF_IT' is not set"):
        resolve("postgresql://me:${PASSWORD}@$HOST_OF_IT/db")


def test_a_misspelled_field_does_not_show_its_value() -> None:
    with pytest.raises(
        UserError, match=r"^--search\.storge: unknown field search\.storge .* mean 'storage'\?"
    ) as refused:
        load_search({}, ["--search.storge=postgresql://me:secret@host/db"], "space.yaml")
    assert "secret" not in str(refused.value)

"""What is told of a storage's address: never a password."""

import pytest

from vadv_dist.config.storage_url import passwords, require_sound, resolve, shown, without_secrets
from vadv_dist.errors import UserError


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
def test_an_address_with_a_password_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(UserError, match=r"holds a password.*\$VADV_STUDY") as refused:
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
def test_an_address_without_one_is_taken_and_told_as_it_is_shown(address: str) -> None:
    require_sound(address)
    assert without_secrets(f"at {address}", address) == f"at {shown(address)}"


def test_a_password_is_known_as_it_is_written_and_as_it_is_meant() -> None:
    assert passwords("postgresql://me:a%40b@host/db") == ["a%40b", "a@b"]
    assert without_secrets("no user me with a@b", "postgresql://me:a%40b@host/db") == "no user me with ***"


def test_an_address_that_is_none_is_not_repeated_where_it_may_hold_a_password() -> None:
    with pytest.raises(UserError, match=r"search\.storage is no address, expected an RDB URL") as refused:
        require_sound("me:secret@host/db")
    assert "secret" not in str(refused.value)
    with pytest.raises(UserError, match=r"search\.storage is study\.db, expected"):
        require_sound("study.db")


def test_each_name_must_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "se$cret")
    assert resolve("postgresql://me:$PASSWORD@host/db") == "postgresql://me:se$cret@host/db"
    with pytest.raises(UserError, match=r"search\.storage is .*, but the environment variable 'HOST_OF_IT' is not set"):
        resolve("postgresql://me:${PASSWORD}@$HOST_OF_IT/db")

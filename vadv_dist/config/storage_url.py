"""The address of a study's storage: what may be written down of it, and what never is."""

import contextlib
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from vadv_dist.config.places import expand
from vadv_dist.errors import UserError

_SECRETS = ("password", "passwd", "pwd", "sslpassword")
# A name in the environment, which stands for what is not written down.
_NAME = re.compile(r"\$(\w+|\{\w+\})")


def require_sound(storage: str) -> None:
    """Refuse an address that holds a password, or that is none.

    Raises:
        UserError: with a message that does not repeat the address where it may hold a password.
    """
    if passwords(_NAME.sub("", storage)):
        raise UserError(
            "search.storage holds a password, which would be written into study.yaml. Put the URL into an "
            "environment variable and give its name: search.storage: $VADV_STUDY."
        )
    if "://" not in storage and not storage.endswith(".log") and not _NAME.search(storage):
        shown = "no address" if "@" in storage else storage
        raise UserError(
            f"search.storage is {shown}, expected an RDB URL such as postgresql+psycopg://HOST/NAME, or "
            "a path that ends in .log for a journal."
        )


def resolve(storage: str) -> str:
    """Replace names by what the environment holds for them, and the `~` of a path.

    Raises:
        UserError: it does not hold one of them.
    """
    return expand(storage, "search.storage")


def passwords(url: str) -> list[str]:
    """Passwords that stand in an address, as they are written there and as they are meant."""
    _, scheme, rest = url.partition("://")
    if not scheme or url.startswith("sqlite"):
        return []
    # By hand, as urlsplit ends the host at a `#` or `/` that belongs to a password which was not escaped.
    _, _, after_colon = rest.rpartition("@")[0].partition(":")
    found = [after_colon]
    with contextlib.suppress(ValueError):
        found += [value for name, value in parse_qsl(urlsplit(url).query) if name.lower() in _SECRETS]
    return list(dict.fromkeys(word for secret in found if secret for word in (secret, unquote(secret))))


def without_secrets(text: str, url: str) -> str:
    """A text with the passwords of an address taken out, and the address without its user."""
    text = text.replace(url, shown(url))
    for secret in passwords(url):
        text = text.replace(secret, "***")
    return text


def shown(url: str) -> str:
    """An address as it may be told: without user, password and options."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}" if separator else url

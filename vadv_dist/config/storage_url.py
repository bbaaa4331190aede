"""The URL of a study's storage: passwords in it must never reach a file or a message."""

import contextlib
from urllib.parse import parse_qsl, unquote, urlsplit

from vadv_dist.config.places import VARIABLE, expand
from vadv_dist.errors import UserError

_SECRETS = ("password", "passwd", "pwd", "sslpassword")


def require_sound(storage: str) -> None:
    """Check that a storage URL is valid and contains no password.

    Raises:
        UserError: it is not, or does; the message does not repeat a URL that may contain a password.
    """
    if passwords(VARIABLE.sub("", storage)):
        raise UserError(
            "search.storage contains a password, which would be written to study.yaml. Put the URL into an "
            "environment variable and use its name: search.storage: $VADV_STUDY."
        )
    if "://" not in storage and not storage.endswith(".log") and not VARIABLE.search(storage):
        shown = "not a valid URL" if "@" in storage else storage
        raise UserError(
            f"search.storage is {shown}, expected an RDB URL such as postgresql+psycopg://HOST/NAME, or "
            "a path that ends in .log for a journal."
        )


def resolve(storage: str) -> str:
    """Expand environment variables, and `~` in a path.

    Raises:
        UserError: a variable is not set.
    """
    return expand(storage, "search.storage")


def passwords(url: str) -> list[str]:
    """Passwords in a URL, escaped as they appear there and unescaped."""
    _, scheme, rest = url.partition("://")
    if not scheme or url.startswith("sqlite"):
        return []
    # Not urlsplit: it ends the host at a `#` or `/` in a password that was not escaped.
    _, _, after_colon = rest.rpartition("@")[0].partition(":")
    found = [after_colon]
    with contextlib.suppress(ValueError):
        found += [value for name, value in parse_qsl(urlsplit(url).query) if name.lower() in _SECRETS]
    return list(dict.fromkeys(word for secret in found if secret for word in (secret, unquote(secret))))


def without_secrets(text: str, url: str) -> str:
    """Remove a URL's passwords and user from a text."""
    text = text.replace(url, shown(url))
    for secret in passwords(url):
        text = text.replace(secret, "***")
    return text


def shown(url: str) -> str:
    """A URL that is safe to display: without user, password and options."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}" if separator else url

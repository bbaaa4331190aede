"""HTML as strings in which plain text is escaped."""

import html


class Markup(str):
    """Text that is markup already, and is written as it is."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | None) -> Markup:
    """Write one element.

    Args:
        name: element name, such as `td`.
        children: its content; a plain string is escaped, `Markup` is not.
        attributes: trailing underscores are dropped (`class_`), others become hyphens (`aria_label`); None omits an
            attribute.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("meta", "link", "img"):  # HTML does not close them
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """Concatenate parts; plain text is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(part) for part in parts))

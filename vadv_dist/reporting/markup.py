"""HTML and SVG as strings in which plain text is escaped unless it is known to be markup."""

import html

Attribute = str | int | float | None


class Markup(str):
    """Text that is markup already, and is written as it is."""

    __slots__ = ()


def escape(content: str) -> Markup:
    """Return content as markup: escaped, unless it is markup already."""
    return content if isinstance(content, Markup) else Markup(html.escape(content, quote=True))


def tag(name: str, *children: str, **attributes: Attribute) -> Markup:
    """Write one element.

    Args:
        name: element name, as `td` or `path`.
        children: its content; a plain string is escaped, `Markup` is not.
        attributes: trailing underscores are dropped (`class_`), others become hyphens (`aria_label`); None leaves an
            attribute out, and numbers are written short.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children and name in _EMPTY:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")


def join(*parts: str) -> Markup:
    """Write parts one after the other, plain text escaped."""
    return Markup("".join(escape(part) for part in parts))


# Elements that HTML closes itself.
_EMPTY = frozenset({"meta", "link", "br", "hr", "col"})


def _text(value: str | int | float) -> str:
    # Two decimals are a hundredth of a pixel at the sizes that figures are drawn in.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

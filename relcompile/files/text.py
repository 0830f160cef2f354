"""Strings that others chose, as they may be shown."""


def printable(text: str) -> str:
    r"""`text` with every character that is not printed (newlines, escapes, marks of direction) spelt out: `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

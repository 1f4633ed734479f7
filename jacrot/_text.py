"""Text that comes from files and users, fit to be shown."""


def printable(text: str) -> str:
    r"""Escape the characters of a text that would not be seen, or would steer what shows it.

    Parameters
    ----------
    text : str
        Perhaps from a file.

    Returns
    -------
    str
        The same in one line, with escapes, as in Python, in place of those characters.

    Examples
    --------
    >>> from jacrot._text import printable
    >>> print(printable("layer\x1b[2J\u202e"))
    layer\x1b[2J\u202e
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)

"""Text that can be shown: without characters that steer a terminal or that a stream lacks."""

# What stands for a character that an encoding lacks; others are escaped as in Python.
ASCII = {"ε": "eps", "→": "->", "×": "x", "±": "+/-", "–": "-", "’": "'", "ℓ": "l", "…": "..."}
# What writing raises: of a pipe that nobody reads, a full disk, a stream that is closed.
UNWRITABLE = (OSError, ValueError)


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
    >>> from jacrot._utils.text import printable
    >>> print(printable("layer\x1b[2J\u202e"))
    layer\x1b[2J\u202e
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def encodable(text: str, encoding: str) -> str:
    r"""Replace the characters that an encoding lacks.

    Parameters
    ----------
    text : str
        What is to be printed.
    encoding : str
        The encoding.

    Returns
    -------
    str
        The same, or as near to it as the encoding comes.

    Examples
    --------
    >>> from jacrot._utils.text import encodable
    >>> print(encodable("Network(64 → 10) ± 1 ж", "latin-1"))
    Network(64 -> 10) ± 1 \u0436
    """

    def replaced(letter: str) -> str:
        try:
            letter.encode(encoding)
            return letter
        except UnicodeEncodeError:
            return ASCII.get(letter, ascii(letter)[1:-1])

    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(map(replaced, text))

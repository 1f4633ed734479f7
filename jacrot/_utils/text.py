"""Text without control characters, and without characters that an encoding lacks."""

# Replacements for characters that an encoding lacks; others are escaped as in Python.
ASCII = {"ε": "eps", "→": "->", "×": "x", "±": "+/-", "–": "-", "’": "'", "ℓ": "l", "…": "..."}
# Errors of writing to a pipe without a reader, to a full disk, or to a closed stream.
UNWRITABLE = (OSError, ValueError)


def escape_control_characters(text: str) -> str:
    r"""Escape control characters, line breaks and other characters that are not printable.

    Parameters
    ----------
    text : str
        Text that may come from a file.

    Returns
    -------
    str
        The text in one line, with these characters escaped as in Python.

    Examples
    --------
    >>> from jacrot._utils.text import escape_control_characters
    >>> print(escape_control_characters("layer\x1b[2J\u202e"))
    layer\x1b[2J\u202e
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def replace_unencodable(text: str, encoding: str) -> str:
    r"""Replace characters that an encoding lacks.

    Parameters
    ----------
    text : str
        Text to print.
    encoding : str
        Name of the encoding.

    Returns
    -------
    str
        The text, with replacements from `ASCII` or escapes.

    Examples
    --------
    >>> from jacrot._utils.text import replace_unencodable
    >>> print(replace_unencodable("Network(64 → 10) ± 1 ж", "latin-1"))
    Network(64 -> 10) ± 1 \u0436
    """

    def replace(letter: str) -> str:
        try:
            letter.encode(encoding)
            return letter
        except UnicodeEncodeError:
            return ASCII.get(letter, ascii(letter)[1:-1])

    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(map(replace, text))

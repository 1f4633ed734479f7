"""Check the language of docstrings, comments, messages and pages against a short list of rules.

The rules keep the text near that of scikit-learn's documentation: plain sentences, the terms of
the field, verbs that a reader expects. Each has an example that it must find, so that a rule that
no longer works is noticed. codespell checks the spelling.

    python .ci/language.py                # everything
    python .ci/language.py jacrot/layers  # some files or folders
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CHECKED = ("jacrot", "examples", "benchmarks", "tests", "docs", ".ci", "README.md")
# Generated pages, and this file, which has an example of every habit.
SKIPPED = ("docs/auto_examples", "docs/_build", "docs/api/generated", ".ci/language.py")
# Python code, pages and templates of pages.
SUFFIXES = (".py", ".md", ".jinja")

# Kinds of text: the first sentence of a docstring, all of a docstring, comments, string constants
# of several words (error messages, for the most part), Markdown pages, names of functions.
SUMMARY, DOCSTRING, COMMENT, MESSAGE, PAGE, NAME = (
    "summary",
    "docstring",
    "comment",
    "message",
    "page",
    "name",
)
PROSE = (DOCSTRING, COMMENT, MESSAGE, PAGE)


class Rule(NamedTuple):
    """A habit to avoid.

    Parameters
    ----------
    pattern : str
        Regular expression, matched case-insensitively; a space stands for any white space.
    better : str
        The reason, and what to use instead.
    kinds : tuple of str
        Kinds of text that it applies to.
    example : str
        Text in which it is found.
    """

    pattern: str
    better: str
    kinds: tuple[str, ...]
    example: str


RULES = (
    Rule(
        r"\A(give|tell|say|put|lay|go|hear|take|make|be|who|let|have|stand|know|see|note|learn"
        r"|look(?! up))s?\b",
        "a summary begins with what the function does: Return, Compute, Check, Build, Raise, ...",
        (SUMMARY,),
        "Give the shape of the result.",
    ),
    Rule(
        r"[;,:.] (or |and |please )?write (?!to\b)",
        "ask for an argument with 'pass', for a file with 'save'",
        (MESSAGE,),
        "X has shape (3,); write a matrix.",
    ),
    Rule(
        r"(?<!there.)\b(is|are|was|were) no (?!longer|more|less|fewer|larger|smaller|better|worse"
        r"|wider|narrower|slower|faster|higher|lower|different|such)",
        "'is not a', 'are not', 'there is no'",
        PROSE,
        "If it is no path.",
    ),
    Rule(
        r"(\A|[.:!?] |\n\n)(?-i:Of) (?!course)|; of (?!course)",
        "a sentence does not begin with 'Of': 'For sequences, ...', 'The size of ...'",
        PROSE,
        "Of sequences, every position is a sample.",
    ),
    Rule(
        r"\b(nobody|somebody|everybody|anybody|whoever|everyone's|of yours|of ours|of theirs)\b",
        "name the user, the caller, the model or the package; 'your own'",
        PROSE,
        "inputs nobody thought of",
    ),
    Rule(
        r"\bwhatever (is|it|they|the|a|he)\b",
        "'any ...', 'regardless of ...'",
        PROSE,
        "whatever the order is",
    ),
    Rule(
        r"\bso many(?! (\w+ ){0,6}that\b)|\bas many(?=[.,;:)]|\Z)",
        "state the number: 'this many', 'the same number of'",
        PROSE,
        "pass as many.",
    ),
    Rule(
        r"\b(the door|foreign|alive|spoilt|tired|threats?|hostile answer|who has|hears? that"
        r"|seen enough)\b",
        "no metaphors: input validation, unexpected, nonzero, mutated, timed out, case",
        (*PROSE, NAME),
        "Arrays at the door",
    ),
    Rule(
        r"\b(way out|no use|by hand made|to be told|what is it)\b",
        "name the advice, or what is returned",
        (DOCSTRING, COMMENT, PAGE),
        "Return the way out.",
    ),
    Rule(
        r"\b(which|that|what) there (is|are) (not|none)\b",
        "'which does not exist'",
        PROSE,
        "an axis that there is not",
    ),
    Rule(
        r"\A_*of_\w+\Z|_of\Z",
        "a function is named by a verb or a noun: 'fit_provenance', not 'of_fit'",
        (NAME,),
        "of_table",
    ),
    Rule(
        r"\A_*(drawn|completed|ordered|signed|described|restored|summed|selected|parsed|altered"
        r"|traced|loaded|naming|existing|printable|whole|evaluated|made|listed|refused|tried|spoilt"
        r"|hopped|swept|finished|begun|ended|priced)(_\w+)?\Z",
        "a function is named by a verb: 'parse', not 'parsed'",
        (NAME,),
        "drawn_pairs",
    ),
)


class Text(NamedTuple):
    """A piece of text and where it begins."""

    kind: str
    line: int
    content: str


def read_python(path: Path) -> Iterator[Text]:
    """Yield the docstrings, comments, string constants and names of functions of a module."""
    tree = ast.parse(path.read_text())
    docstrings = set()
    # Tests hold parts of messages, data, and models of users.
    in_tests = "tests" in path.relative_to(ROOT).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not in_tests:
            yield Text(NAME, node.lineno, node.name)
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (docstring := ast.get_docstring(node, clean=False)) is not None:
            docstrings.add(id(node.body[0].value))
            line = node.body[0].lineno
            prose = without_code(re.sub(r"^ *(>>>|\.\.\. ).*$", "", docstring, flags=re.MULTILINE))
            yield Text(SUMMARY, line, prose.partition("\n\n")[0])
            yield Text(DOCSTRING, line, prose)
    if not in_tests:
        for line, message in messages(tree, docstrings):
            yield Text(MESSAGE, line, message)
    yield from comments(path)


def messages(tree: ast.Module, docstrings: set[int]) -> Iterator[tuple[int, str]]:
    """Yield string constants of several words, with ``{}`` for what is formatted into them."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
            text = "".join(
                str(value.value) if isinstance(value, ast.Constant) else "{}"
                for value in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in docstrings | parts:
                continue
            text = node.value
        else:
            continue
        if text.count(" ") >= 3:
            yield node.lineno, text


def comments(path: Path) -> Iterator[Text]:
    """Yield comments; lines of one column that follow one another are one comment."""
    lines: list[str] = []
    first, column = 0, 0
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type != tokenize.COMMENT:
                continue
            row, start = token.start
            text = token.string.lstrip("#").strip()
            if lines and (row, start) == (first + len(lines), column):
                lines.append(text)
                continue
            if lines:
                yield Text(COMMENT, first, "\n".join(lines))
            lines, first, column = [text], row, start
    if lines:
        yield Text(COMMENT, first, "\n".join(lines))


def without_code(text: str) -> str:
    """Replace code in a text by spaces, so that positions stay the same."""
    for pattern in (r"^ *(```|~~~).*?^ *\1 *$", r"``[^`]+``", r"`[^`\n]+`", r"\]\([^)]*\)"):
        text = re.sub(
            pattern,
            lambda found: re.sub(r"\S", "#", found[0]),
            text,
            flags=re.DOTALL | re.MULTILINE,
        )
    return text


def read(path: Path) -> Iterator[Text]:
    """Yield the texts of a file."""
    if path.suffix == ".py":
        yield from read_python(path)
    else:
        yield Text(PAGE, 1, without_code(path.read_text()))


def find(text: Text) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the words and the advice of every rule that a text breaks."""
    for rule in RULES:
        if text.kind in rule.kinds:
            pattern = rule.pattern.replace(" ", r"\s+")
            content = text.content.lstrip() if text.kind == SUMMARY else text.content
            for found in re.finditer(pattern, content, flags=re.IGNORECASE):
                line = text.line + content.count("\n", 0, found.end() - 1)
                yield line, " ".join(found[0].split()), rule.better


def files(arguments: list[str]) -> Iterator[Path]:
    """Yield the files to check."""
    for name in arguments or CHECKED:
        start = ROOT / name
        found = [start] if start.is_file() else sorted(start.rglob("*"))
        for path in found:
            relative = path.relative_to(ROOT).as_posix()
            if path.suffix in SUFFIXES and not relative.startswith(SKIPPED):
                yield path


def main(arguments: list[str]) -> None:
    """Print what breaks a rule, and exit with status 1 if anything does."""
    for rule in RULES:
        for kind in rule.kinds:
            if not any(better == rule.better for *_, better in find(Text(kind, 1, rule.example))):
                sys.exit(f"the rule {rule.pattern!r} does not find its example in a {kind}")
    findings = [
        f"{path.relative_to(ROOT)}:{line}: {words!r}: {better}"
        for path in files(arguments)
        for text in read(path)
        for line, words, better in find(text)
    ]
    print("\n".join(findings) or "language: no findings")
    if findings:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

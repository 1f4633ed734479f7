"""Elements of an HTML page, in which all text is escaped, and their style sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from jacrot._utils.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dots per inch of a picture.
DPI = 130


def element(
    tag: str, *content: str | ElementTree.Element | dict[str, str], **attributes: str
) -> ElementTree.Element:
    """Return an element; all text in it is escaped when it is written."""
    made = ElementTree.Element(tag, attributes)
    last: ElementTree.Element | None = None
    for part in content:
        if isinstance(part, dict):
            made.attrib |= part
        elif isinstance(part, str):
            text = "\n".join(map(printable, part.split("\n")))
            if last is None:
                made.text = (made.text or "") + text
            else:
                last.tail = (last.tail or "") + text
        else:
            made.append(part)
            last = part
    return made


def section(title: str, *content: str | ElementTree.Element) -> ElementTree.Element:
    """Return a section of paragraphs and other elements."""
    parts = [element("p", part) if isinstance(part, str) else part for part in content]
    return element("section", element("h2", title), *parts)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: bool = True,
    counts: int | None = None,
    last_row: bool = False,
) -> ElementTree.Element:
    """Return a table of numbers, with the column and the row that count marked."""

    def marked(column: int) -> dict[str, str]:
        return {"class": "counts"} if column == counts else {}

    names = [element("th", name, marked(i), scope="col") for i, name in enumerate(columns)]
    head = element("tr", *names)
    body = element("tbody")
    for index, row in enumerate(rows):
        cells = [element("th", row[0], scope="row")]
        cells += [element("td", cell, marked(i)) for i, cell in enumerate(row[1:], start=1)]
        ours = last_row and index == len(rows) - 1
        body.append(element("tr", *cells, {"class": "ours"} if ours else {}))
    kind = "numbers" if numbers else "words"
    made = element("table", element("thead", head), body, {"class": kind})
    # A wide table scrolls by itself on a narrow screen.
    return element("div", made, {"class": "wide"})


def picture(figure: Figure, description: str) -> ElementTree.Element:
    """Return a figure as an image that is part of the page."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return element("figure", element("img", src=source, alt=printable(description)))


STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --quiet: #5b6470; --paper: #fff; --line: #d5dae0;
  --tint: #eaf3fb; --warn: #fdf1e3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --quiet: #9da7b3; --paper: #15191e;
  --line: #39414b; --tint: #17293a; --warn: #382a18; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header p { margin: 0; color: var(--quiet); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 0; }
p { margin: .7rem 0; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
.figures div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.figures div:first-child { background: var(--tint); }
.figures dt { font-size: .85rem; color: var(--quiet); }
.figures dd { margin: 0; font-size: .85rem; color: var(--quiet); }
.figures .figure, .figures .phrase { font-weight: 600; color: var(--ink); }
.figures .figure { font-size: 1.35rem; line-height: 1.3; }
.figures .phrase { font-size: 1.05rem; line-height: 1.35; margin: .1rem 0; }
.warnings { background: var(--warn); border-radius: .5rem; padding: .8rem 1rem .8rem 2rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .95rem; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: 400; }
thead th { color: var(--quiet); font-size: .85rem; }
.numbers th + th, .numbers td { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; padding-left: .8rem; }
.numbers .counts { background: var(--tint); font-weight: 650; }
.ours th, .ours td { font-weight: 650; }
.words { width: 100%; font-size: .85rem; }
.words td { overflow-wrap: anywhere; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr));
  column-gap: 2rem; align-items: start; }
@media (max-width: 36rem) { table { font-size: .85rem; }
  .numbers th + th, .numbers td { padding-left: .4rem; padding-right: .4rem; } }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; padding: .8rem;
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: .5rem; }
@media print {
  :root { color-scheme: light; --ink: #000; --quiet: #444; --paper: #fff; --line: #bbb;
    --tint: #eee; --warn: #eee; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr, pre, .figures div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  h2 { margin-top: 1.2rem; padding-top: .6rem; }
  th, td { padding-top: .15rem; padding-bottom: .15rem; }
}
"""

"""Configuration of the documentation; building it runs the examples of the gallery."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

import jacrot

project = "jacrot"
author = "the jacrot developers"
copyright = author
version = release = jacrot.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
# Options of commands keep their two hyphens.
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings list the types, and their examples run with the tests.
autodoc_typehints = "none"
# Methods of layers are documented once, in BaseLayer.
autodoc_inherit_docstrings = False
numpydoc_show_class_members = False
doctest_test_doctest_blocks = ""
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"/plot_",
    "doc_module": ("jacrot",),
    "backreferences_dir": None,
    "ignore_repr_types": r"jacrot\.display",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "min_reported_time": 1,
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "thumbnail_size": (560, 400),
}

html_theme = "pydata_sphinx_theme"
html_title = "jacrot"
html_static_path = ["_static"]
html_css_files = ["jacrot.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {
    page: [] for page in ("changelog", "comparison", "contributing", "index", "misleads")
}
html_math_renderer = "mathml"


def mathml(translator, node: nodes.Element) -> None:
    """Write a formula as MathML: browsers show it without a script or a network."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = latex2mathml.tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        formula = ""
        logging.getLogger(__name__).warning("formula: %s", error, location=node)
    translator.body.append(f'<div class="formula">{formula}</div>\n' if block else formula)
    raise nodes.SkipNode


def escape_types(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Keep ``n_features_in_`` and ``*input shape`` in the types of docstrings from being markup."""
    for number, line in enumerate(lines):
        if match := re.fullmatch(r"([^`]*? : |[^`]*?of shape )([^`]*)", line):
            lines[number] = match[1] + re.sub(r"\*|_(?=\W)", r"\\\g<0>", match[2])


def plot_for_readers_only(app: Sphinx) -> None:
    """Leave the gallery unexecuted where no pages are written, as in the doctests."""
    app.config.plot_gallery = app.builder.format == "html"


def setup(app: Sphinx) -> None:
    """Register the math renderer and the event handlers."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    # Before numpydoc.
    app.connect("autodoc-process-docstring", escape_types, priority=0)
    app.connect("builder-inited", plot_for_readers_only, priority=0)

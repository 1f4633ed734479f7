"""Docstrings: their examples run, and numpydoc finds nothing wrong in public ones."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
from numpydoc.validate import validate

import jacrot

MODULES = ["jacrot"] + [
    module.name for module in pkgutil.walk_packages(jacrot.__path__, prefix="jacrot.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


PUBLIC = (
    "jacrot",
    "jacrot.activations",
    "jacrot.criteria",
    "jacrot.datasets",
    "jacrot.display",
    "jacrot.layers",
    "jacrot.metrics",
    "jacrot.positions",
    "jacrot.readers",
)
# No summary over several lines, no extended summary, no "See Also", types in parentheses allowed.
WAIVED = {"ES01", "GL01", "GL02", "GL03", "SA01", "SA04", "SS06"}


def public_names():
    """List public functions and classes, and the public methods of the classes."""
    for name in PUBLIC:
        module = importlib.import_module(name)
        for member in module.__all__:
            object_ = getattr(module, member)
            if not callable(object_):
                continue
            yield f"{name}.{member}"
            if inspect.isclass(object_):
                for method in vars(object_):
                    # What a base class documents need not be said again.
                    inherited = any(hasattr(base, method) for base in object_.__bases__)
                    silent = getattr(object_, method).__doc__ is None and inherited
                    if (
                        not method.startswith("_")
                        and callable(getattr(object_, method))
                        and not silent
                    ):
                        yield f"{name}.{member}.{method}"


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_public_docstrings_are_numpydocs(name):
    is_method = name.split(".")[-2][:1].isupper()
    # A method's example is its class's; a protocol has no constructor to document.
    waived = WAIVED | ({"EX01"} if is_method else set())
    if name.startswith("jacrot.layers.Layer"):
        # BaseLayer, which implements the protocol, says the rest.
        waived |= {"PR01", "RT01"}
    errors = [error for error in validate(name)["errors"] if error[0] not in waived]
    assert errors == []


def test_importing_the_package_does_not_need_optional_packages():
    code = "import sys; sys.modules['pandas'] = None; import jacrot.display"
    subprocess.run([sys.executable, "-c", code], check=True)

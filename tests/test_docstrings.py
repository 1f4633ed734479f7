"""Docstrings: their examples run, and numpydoc finds nothing wrong in public ones."""

import doctest
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import framework
from numpydoc.validate import validate

import jacrot

MODULES = ["jacrot"] + [
    module.name for module in pkgutil.walk_packages(jacrot.__path__, prefix="jacrot.")
]


# Optional packages that a module imports, or that its example needs.
OPTIONAL = re.compile(
    r'^(?: *>>> )?(?:import|from) (flax|jax|keras|onnx|torch)\b|import_optional\(\s*"(\w+)',
    re.MULTILINE,
)


def optional_packages(name):
    source = Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
    return sorted({imported or required for imported, required in OPTIONAL.findall(source)})


@pytest.mark.search
@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    for package in optional_packages(name):
        framework(package)
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


PUBLIC = (
    "jacrot",
    "jacrot.activations",
    "jacrot.criteria",
    "jacrot.datasets",
    "jacrot.display",
    "jacrot.inspection",
    "jacrot.layers",
    "jacrot.metrics",
    "jacrot.positions",
    "jacrot.provenance",
    "jacrot.readers",
    "jacrot.report",
    "jacrot.segments",
    "jacrot.writers",
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
                    value = getattr(object_, method, None)
                    silent = value.__doc__ is None and (
                        inherited or hasattr(value, "__deprecated__")
                    )
                    if not method.startswith("_") and callable(value) and not silent:
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


def test_the_reference_lists_every_public_name():
    page = (Path(__file__).parents[1] / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    listed = set()
    for section in page.split(".. currentmodule:: ")[1:]:
        module, *names = section.partition("```")[0].split()
        listed |= {f"{module}.{name}" for name in names if name.isidentifier()}
    # Methods are on the pages of their classes.
    public = {name for name in public_names() if not name.split(".")[-2][:1].isupper()}
    assert public - listed == set()


WITHOUT_OPTIONAL_PACKAGES = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
OPTIONAL = {"jinja2", "pandas", "torch", "keras", "jax", "flax", "onnx", "safetensors"}
sys.meta_path.insert(0, Absent())
import jacrot.report
from jacrot.readers import from_torch
try:
    from_torch(None)
except ImportError as error:
    assert "from_torch needs torch" in str(error) and "jacrot[torch]" in str(error)
else:
    raise AssertionError
"""


def test_importing_the_package_does_not_need_optional_packages():
    subprocess.run([sys.executable, "-c", WITHOUT_OPTIONAL_PACKAGES], check=True)

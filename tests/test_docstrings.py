"""Docstrings: their examples run, and numpydoc finds nothing wrong in public ones."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import jacrot

MODULES = ["jacrot"] + [
    module.name for module in pkgutil.walk_packages(jacrot.__path__, prefix="jacrot.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_importing_the_package_does_not_need_optional_packages():
    code = "import jacrot, sys; assert 'pandas' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

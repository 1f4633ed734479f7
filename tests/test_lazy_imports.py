"""What is not used is not imported: the optimiser imports every framework that is installed."""

import subprocess
import sys

import pytest

import jacrot


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_package_imports_nothing_large():
    modules = run("import sys, jacrot; jacrot.__version__; print(*sys.modules)").split()
    assert "jacrot" in modules
    assert not {"numpy", "sklearn", "pymanopt", "matplotlib"} & set(modules)


def test_public_names_and_modules_are_attributes():
    for name in (*jacrot.__all__, "layers", "readers", "report"):
        assert name in dir(jacrot)
        assert getattr(jacrot, name) is not None
    with pytest.raises(AttributeError, match="module 'jacrot' has no attribute 'rotations'"):
        jacrot.rotations  # noqa: B018

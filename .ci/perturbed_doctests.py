"""Run the doctests of the documentation with perturbed inputs: ``python perturbed_doctests.py SEED``."""

import sys
from pathlib import Path

from sphinx.cmd.build import main

root = Path(__file__).parents[1]
sys.path.insert(0, str(root / "tests"))
from perturbation import perturbed

seed = int(sys.argv[1])
output = root / "docs" / "_build" / f"doctest-{seed}"
with perturbed(seed):
    sys.exit(main(["-W", "-q", "-b", "doctest", str(root / "docs"), str(output)]))

"""Run the doctests of the documentation with perturbed inputs.

``PYTHONPATH=tests python .ci/perturbed_doctests.py SEED``
"""

import sys
from pathlib import Path

from perturbation import perturbed
from sphinx.cmd.build import main

docs = Path(__file__).parents[1] / "docs"
seed = int(sys.argv[1])
output = docs / "_build" / f"doctest-{seed}"
with perturbed(seed):
    sys.exit(main(["-W", "-q", "-b", "doctest", str(docs), str(output)]))

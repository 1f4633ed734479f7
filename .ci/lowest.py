"""Print the oldest supported version of every dependency, as a requirement."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
# Lint and types are a matter of the newest tools, and what counts as a good docstring too.
tests = project["optional-dependencies"]["test"]
tests = [line for line in tests if not re.match("mypy|numpydoc|ruff", line)]
for line in project["dependencies"] + tests:
    print(line.replace(">=", "=="))
print("numpydoc")
# matplotlib 3.10.0 warns with a newer one.
print("pyparsing<3.3")

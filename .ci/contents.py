"""Check that the wheel and the source archive contain what they should, and nothing more."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

root = Path(__file__).parents[1]
folder = Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
(archive,) = folder.glob("*.tar.gz")


def files(*patterns):
    """List files of the tree, without what tools leave behind."""
    found = {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)}
    return {
        name for name in found if not re.search(r"__pycache__|\.egg-info|_build|/generated/", name)
    }


def check(kind, has, wanted):
    """Compare two sets of names."""
    if has == wanted:
        print(f"{kind}: {len(has)} files, as wanted")
        return
    sys.exit(f"{kind} lacks {sorted(wanted - has)} and has besides {sorted(has - wanted)}")


package = files(
    "jacrot/**/*.py",
    "jacrot/py.typed",
    "jacrot/data/*.npz",
    "jacrot/report/*.css",
    "jacrot/report/*.jinja",
)
names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
check("wheel", names, package)

source = package | files(
    "tests/**/*.py",
    "tests/**/*.npz",
    "tests/**/*.safetensors",
    "examples/**/*.py",
    "examples/**/*.rst",
    "benchmarks/*.py",
    "docs/**/*.md",
    "docs/**/*.png",
    "docs/**/*.py",
    "docs/**/*.rst",
    "docs/**/*.css",
    ".ci/*",
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "MANIFEST.in",
    "pyproject.toml",
)
with tarfile.open(archive) as opened:
    names = {member.name.partition("/")[2] for member in opened if member.isfile()}
# What setuptools writes into every source archive.
names = {name for name in names if ".egg-info/" not in name} - {"PKG-INFO", "setup.cfg"}
check("source archive", names, source)

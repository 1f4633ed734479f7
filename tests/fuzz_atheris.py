"""Coverage-guided fuzzing of the readers of files with atheris, which is optional.

atheris changes the bytes of good files, guided by the lines of the readers that they reach. Any
answer but a network, or an error that names the file, ends the run; the content is then
written to the current folder. Files that reach new lines are kept in ``fuzz_corpus``, where the
next run begins. ``fuzz_files.py`` also watches memory and what is executed.

    pip install atheris
    python tests/fuzz_atheris.py npz -max_total_time=600
"""

import sys
import warnings
from pathlib import Path

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("fuzz_atheris.py needs atheris: pip install atheris")

with atheris.instrument_imports(include=["jacrot.readers", "jacrot.layers", "jacrot.network"]):
    from jacrot.readers import list_arrays, load

from corpus import SUFFIXES, good_files

OURS = (ValueError, TypeError, FileNotFoundError)


def main():
    """Fuzz one format, with the options of libFuzzer that follow its name."""
    kind, *options = sys.argv[1:] or ["npz"]
    if kind not in SUFFIXES:
        sys.exit(f"{kind!r} is not a format; pass one of {', '.join(SUFFIXES)}.")
    warnings.simplefilter("ignore")
    seeds = Path("fuzz_corpus", kind)
    seeds.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(good_files(kind)):
        (seeds / f"good {number}").write_bytes(content)
    path = seeds.with_name(f"model{SUFFIXES[kind]}")

    def read(content):
        path.write_bytes(content)
        for reader in (load, list_arrays):
            try:
                reader(path)
            except OURS as error:
                if repr(str(path)) not in str(error):
                    raise

    atheris.Setup([sys.argv[0], *options, str(seeds)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

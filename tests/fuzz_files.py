"""Read hostile files: damaged, contradictory or malicious ones, in a process that is watched.

Hand-written cases (declared sizes, bombs, pickles, paths, graphs that call themselves),
and random changes of good files: in their bytes, in members of zip files whose check sums are
then corrected, in JSON headers, in protobuf messages. Each file is listed and loaded in another
process, in which an audit hook watches what is executed and what is opened outside of the
folder; it does not see native code. The answer must be a network, or an error that names
the file, within 5 seconds and 1 GB for the whole process. Linux only.

    python tests/fuzz_files.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from corpus import PACKAGES, SUFFIXES, good_files, hostile_cases, write
from corpus.mutation import mutate

from jacrot.readers import list_arrays, load, metadata

SECONDS, MEGABYTES = 5, 1000
# The process is ended beyond this.
CEILING = 2 * MEGABYTES
OURS = (ValueError, TypeError, FileNotFoundError)
WATCHED = ("os.", "subprocess.", "socket.", "shutil.", "pickle.find_class", "pty.")
# A link is looked at, and so is whether something is a file.
HARMLESS = ("os.listdir", "os.scandir")


def answer(function, *args, **kwargs):
    """Call a reader; return "read", "refused" or the name of an error, and the result."""
    try:
        return "read", function(*args, **kwargs)
    except Exception as error:
        if type(error) in OURS and repr(str(args[0])) in str(error):
            return "refused", str(error)
        place = traceback.extract_tb(error.__traceback__)[-1]
        return type(error).__name__, f"{Path(place.filename).name}:{place.lineno}: {error!s:.300}"


def read_file(path):
    """List and load a file; return the answer of `load`, or an unexpected error."""
    listed, loaded = answer(list_arrays, path), answer(load, path)
    answers = [listed, loaded]
    if path.suffix in (".npz", ".safetensors"):
        answers.append(answer(metadata, path))
    if (listed[0], loaded[0]) == ("read", "refused") and path.suffix != ".onnx":
        answers.append(answer(load, path, names=list(listed[1])[:2]))
    unexpected_errors = [given for given in answers if given[0] not in ("read", "refused")]
    return [*unexpected_errors, loaded][0]


def work(folder):
    """Read the files whose paths come in, one a line; answer each with a line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    os.chdir(folder)
    events, watching = [], False
    code = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "/proc/self")

    def watch(event, args):
        if not watching:
            return
        if event == "open":
            path, mode, flags = args[0], args[1] or "", args[2] or 0
            writes = set("wax+") & set(mode) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            known = isinstance(path, int) or os.path.realpath(path).startswith((folder, *code))
            if writes or not known:
                events.append(f"open {path!r} {mode}")
        elif event.startswith(WATCHED) and event not in HARMLESS:
            events.append(f"{event} {args!r}"[:200])

    sys.addaudithook(watch)
    # Native code may print.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        path = Path(json.loads(line))
        # The largest resident size starts again at the present one.
        Path("/proc/self/clear_refs").write_text("5")
        events.clear()
        begin, watching = time.perf_counter(), True
        outcome, given = read_file(path)
        seconds, watching = time.perf_counter() - begin, False
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        answers.write(json.dumps([outcome, f"{given!s:.400}", seconds, int(peak) / 1e3, events]))
        answers.write("\n")


class Worker:
    """The process that reads, as seen from here."""

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        """Start the process."""
        settings = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | settings,
        )

    def prepare(self, kind):
        """Read a good file, so that the process has imported what a format needs."""
        path = self.folder / f"first{SUFFIXES[kind]}"
        path.write_bytes(good_files(kind)[0])
        outcome, given, *_ = self.ask(path, limit=120)
        if outcome != "read":
            raise RuntimeError(f"a good file of {kind} gives {outcome}: {given}")

    def ask(self, path, limit=SECONDS):
        """Read a file in the process; return its answer, or why there is none."""
        self.process.stdin.write(f"{json.dumps(str(path))}\n".encode())
        self.process.stdin.flush()
        begin, statm = time.perf_counter(), Path(f"/proc/{self.process.pid}/statm")
        while not select.select([self.process.stdout], [], [], 0.02)[0]:
            taken = int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
            seconds = time.perf_counter() - begin
            if taken > CEILING or seconds > limit:
                self.end()
                return ["memory" if taken > CEILING else "hang", "", seconds, taken, []]
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.end()
        return ["crash", signal.Signals(-code).name if code < 0 else str(code), 0.0, 0.0, []]

    def end(self):
        """End the process."""
        self.process.stdin.close()
        self.process.kill()
        self.process.stdout.close()
        return self.process.wait()


def cases(kind, n_files, quick, rng):
    """Yield names and contents: every case, then mutated files."""
    listed = list(hostile_cases(kind).items())
    if quick:
        listed = [(name, case) for name, case in listed if not name.startswith("slow")]
        chosen = rng.choice(len(listed), min(n_files, len(listed)), replace=False)
        listed = [listed[place] for place in sorted(chosen)]
    yield from listed
    goods = good_files(kind)
    for number in range(n_files - len(listed)):
        yield f"mutated {number}", mutate(kind, goods, rng)


def run(worker, kind, n_files, quick, seed, keep):
    """Read many files of a format; return the row of the table and what went wrong."""
    folder = worker.folder
    rng = np.random.default_rng([seed, list(SUFFIXES).index(kind)])
    counts, unexpected_errors, wrong, slowest, highest = Counter(), Counter(), [], 0.0, 0.0
    worker.prepare(kind)
    for number, (name, case) in enumerate(cases(kind, n_files, quick, rng)):
        place = folder / str(number)
        place.mkdir()
        path = place / f"model{SUFFIXES[kind]}"
        write(case, path)
        outcome, given, seconds, megabytes, events = worker.ask(path)
        slowest, highest = max(slowest, seconds), max(highest, megabytes)
        if outcome in ("read", "refused", "crash", "hang", "memory"):
            counts[outcome] += 1
        else:
            unexpected_errors[outcome] += 1
        expected = "read" if name.startswith("good") else "refused"
        failures = {
            "unexpected": outcome != expected and not name.startswith("mutated"),
            "hang": outcome == "read" and seconds > SECONDS,
            "memory": outcome in ("read", "refused") and megabytes > MEGABYTES,
            "executed": bool(events) or (folder / "executed").exists(),
        }
        counts.update(failure for failure, there in failures.items() if there)
        if any(failures.values()) or outcome not in ("read", "refused"):
            facts = f"{seconds:.1f} s, {megabytes:.0f} MB, {events}"
            wrong.append(f"{kind}, {number}, {name}: {outcome}, {facts}: {given}")
            if keep is not None and path.is_file():
                keep.mkdir(exist_ok=True)
                shutil.copy(path, keep / f"{kind} {number}{path.suffix}")
        if outcome in ("crash", "hang", "memory"):
            worker.start()
            worker.prepare(kind)
        shutil.rmtree(place)
    errors = ", ".join(f"{count} {error}" for error, count in unexpected_errors.items())
    failures = [counts[name] for name in ("unexpected", "crash", "hang", "memory", "executed")]
    row = [kind, number + 1, counts["read"], counts["refused"], errors or 0, *failures]
    return [*row, f"{slowest:.2f}", f"{highest:.0f}"], wrong


def main(argv=None):
    """Print the table; exit with status 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, help="number of files, all formats")
    parser.add_argument("--quick", action="store_true", help="100 files, none slow to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random changes")
    parser.add_argument("--formats", nargs="+", choices=list(SUFFIXES), default=list(SUFFIXES))
    parser.add_argument("--keep", type=Path, help="folder for the files that went wrong")
    parser.add_argument("--work", help="folder of files to read, for the process that reads")
    arguments = parser.parse_args(argv)
    if arguments.work is not None:
        work(arguments.work)
        return
    rows, wrong = [], []
    quick, keep = arguments.quick, arguments.keep
    n_files = (100 if quick else arguments.files) // len(arguments.formats)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder).resolve())
        for kind in arguments.formats:
            package = PACKAGES.get(kind, "numpy")
            if find_spec(package) is None:
                rows.append([kind, f"{package} is not installed", *[""] * 9, "-"])
                continue
            row, failures = run(worker, kind, n_files, quick, arguments.seed, keep)
            rows.append(row)
            wrong += failures
        worker.end()
    print(f"Python {platform.python_version()}, {platform.platform()}")
    header = ["format", "files", "read", "refused", "other errors", "not as expected", "crashes"]
    header += [f"> {SECONDS} s", f"> {MEGABYTES} MB", "executed", "slowest s", "peak MB"]
    print("\n| " + " | ".join(header) + " |")
    print("|" + "|".join("---" if column == 0 else "---:" for column in range(len(header))) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    for line in wrong[:100]:
        print(line)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""``jacrot info``: what a file holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jacrot._cli.console import Console
from jacrot._cli.inputs import read_header, without_last_activation
from jacrot._cli.options import InfoOptions
from jacrot._utils.text import escape_control_characters
from jacrot.layers._serialization import FORMAT
from jacrot.layers._weights import Layout
from jacrot.network import Network
from jacrot.readers import list_arrays, load
from jacrot.readers._limits import check_readable_file
from jacrot.readers._saved import parse_description


def run(options: InfoOptions, arguments: Sequence[str]) -> int:
    """Print what a file holds.

    Parameters
    ----------
    options : InfoOptions
        The options.
    arguments : sequence of str
        The arguments of the command, which are not needed.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    ImportError, OSError, TypeError, ValueError
        If the file cannot be read, or nothing can be printed.
    """
    path = check_readable_file(options.file, "FILE")
    header = read_header(path)
    if header is None:
        found = _describe_weights(path)
    else:
        found = _describe_saved(path, parse_description(header, path))
    console = Console()
    console.show(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found)))
    if console.failure is not None:
        raise console.failure
    return 0


def _describe_saved(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Describe a file that jacrot wrote."""
    found = {"file": str(path), "format": description["format"]}
    if found["format"] == FORMAT:
        found["network"] = repr(load(path))
    return found | {"provenance": description.get("metadata", {})}


def _describe_weights(path: Path) -> dict[str, Any]:
    """Describe a file of weights that jacrot did not write, and how to rotate them."""
    arrays = list_arrays(path)
    found: dict[str, Any] = {
        "file": str(path),
        "format": path.suffix.lower(),
        "arrays": {
            name: {"shape": list(array.shape), "dtype": array.dtype}
            for name, array in arrays.items()
        },
    }
    is_graph = path.suffix.lower() == ".onnx"
    network = problem = None
    layouts: tuple[Layout, ...] = ("out_in",) if is_graph else ("out_in", "in_out")
    for layout in layouts:
        try:
            network = load(path, layout=layout)
            break
        except (TypeError, ValueError) as error:
            problem = problem or str(error)
    if network is None:
        found["problem"] = problem
        if not is_graph:
            found["hint"] = "--names MATRIX,BIAS,MATRIX,BIAS... says what to take, in layer order"
        return found
    if not is_graph:
        network = without_last_activation(network)
    found["network"] = repr(network)
    options = [] if layout == "out_in" else ["--layout", layout]
    if not is_graph:
        activations = ["relu"] * (network.n_layers - 1) + ["identity"]
        options += ["--activation", ",".join(activations)]
        found["hint"] = (
            "the file does not say which activation follows a layer: pass --activation, one for "
            "each; by default relu follows every layer but the last, and nothing the last"
        )
    found["commands"] = _suggest_commands(path, network, options)
    return found


def _suggest_commands(path: Path, network: Network, options: list[str]) -> list[str]:
    """Return commands that rotate the activations of a network."""
    layers = [["ACTIVATIONS.npy"]]
    if network.n_layers > 1:
        layers = [
            ["INPUTS.npy", "--from-inputs", "--layers", "1:2"],
            ["INPUTS.npy", "--whole-network"],
        ]
    written = ["-o", "rotation.npz", "--report", "report.html"]
    return [shlex.join(["jacrot", "fit", str(path), *part, *options, *written]) for part in layers]


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """Yield nested mappings and lists as indented lines."""
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        name = "-" if key is None else f"{escape_control_characters(str(key))}:"
        if isinstance(item, dict) and item.keys() == {"shape", "dtype"}:
            item = f"({', '.join(map(str, item['shape']))}) {item['dtype']}"
        if isinstance(item, (dict, list)) and item and not _is_flat(item):
            yield f"{indent}{name}"
            yield from _lines(item, f"{indent}  ")
        else:
            text = json.dumps(item) if isinstance(item, (dict, list)) else str(item)
            yield f"{indent}{name} {escape_control_characters(text)}"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)

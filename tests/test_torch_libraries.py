"""Modules of transformers and timm, with random weights, against their own forward and Jacobian."""

import importlib
import sys

import numpy as np
import pytest
from builders import framework

from jacrot.layers import Attention, Residual
from jacrot.readers import from_torch

torch = framework("torch")
nn = torch.nn
WIDTH, HIDDEN, HEADS = 8, 12, 2
SEQUENCE, IMAGE = (4, WIDTH), (WIDTH, 3, 5)
# Some norms compute in single precision for any input.
EXACT, SINGLE = 1e-10, 1e-6


def check(module, shape, rng, tolerance=EXACT):
    """Compare a module with random weights with the network that is read of it."""
    randomised(module, rng)
    network = from_torch(module)
    module.eval()
    x = torch.from_numpy(rng.normal(size=(3, *shape)))

    def forward(x):
        outputs = module(x)
        outputs = outputs if isinstance(outputs, tuple | torch.Tensor) else outputs[0]
        return outputs if isinstance(outputs, torch.Tensor) else outputs[0]

    close(network(x.numpy()), forward(x).detach().numpy(), tolerance)
    jacobians = [
        torch.autograd.functional.jacobian(lambda row: forward(row[None])[0], row) for row in x
    ]
    close(network.jacobians(x.numpy()), torch.stack(jacobians).numpy(), tolerance)
    return network


def randomised(module, rng):
    module.double()
    for parameter in module.parameters():
        parameter.data += torch.from_numpy(rng.normal(scale=0.3, size=parameter.shape))


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def refuses(module, message):
    with pytest.raises(ValueError, match=message):
        from_torch(module)


def library(name):
    """Import a package that imports torchvision, if that is installed."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        # A build for another PyTorch lacks its own operators, which nothing here uses, and does
        # not import without their names.
        for operator in ("nms", "qnms"):
            schema = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
    return framework(name)


@pytest.fixture(scope="module")
def transformers():
    return library("transformers")


def gpt2(transformers, **options):
    config = transformers.GPT2Config(
        n_embd=WIDTH, n_layer=2, n_head=HEADS, vocab_size=11, n_positions=16, **options
    )
    config.bos_token_id = config.eos_token_id = 0
    return transformers.GPT2Model(config)


def encoder(transformers, name, **options):
    """Build a model of a family whose configurations have the names of BERT's."""
    config = getattr(transformers, f"{name}Config")(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        **options,
    )
    return getattr(transformers, f"{name}Model")(config)


def test_gpt2(transformers, rng):
    model = gpt2(transformers).double().eval()
    network = check(nn.Sequential(*model.h, model.ln_f), SEQUENCE, rng)
    assert [type(layer) for layer in network[:4]] == [Residual] * 4
    attention = network[0].branch.layers[1]
    assert attention.mask == "causal"
    assert attention.n_heads == HEADS
    # What the whole model computes of embeddings.
    x = torch.from_numpy(rng.normal(size=(2, *SEQUENCE)))
    positions = model.wpe(torch.arange(len(x[0])))
    expected = model(inputs_embeds=x - positions).last_hidden_state
    close(network(x.numpy()), expected.detach().numpy(), EXACT)


@pytest.mark.parametrize("part", ["attn", "mlp", "ln_1", "mlp.c_fc"])
def test_parts_of_gpt2(transformers, rng, part):
    check(gpt2(transformers).h[1].get_submodule(part), SEQUENCE, rng)


@pytest.mark.parametrize(
    "options",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"add_cross_attention": True},
        {"activation_function": "gelu_python"},
        {"n_inner": 5},
    ],
)
def test_configurations_of_gpt2(transformers, rng, options):
    check(gpt2(transformers, **options).h[1], SEQUENCE, rng)


def test_attention_whose_mask_is_of_the_model(transformers):
    model = gpt2(transformers)
    model.set_attn_implementation("eager")
    refuses(model.h[0], r"^attn: .*attends to all positions.*set_attn_implementation\('sdpa'\)")


@pytest.mark.parametrize("name", ["Bert", "Roberta", "Camembert", "XLMRoberta", "Electra"])
@pytest.mark.parametrize("decoder", [False, True])
def test_bert(transformers, rng, name, decoder):
    options = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "is_decoder": decoder}
    model = encoder(transformers, name, vocab_size=11, **options)
    network = check(model.encoder.layer[0], SEQUENCE, rng)
    assert isinstance(network[0].branch, Attention)
    assert network[0].branch.mask == ("causal" if decoder else None)


def test_bert_encoder(transformers, rng):
    model = encoder(transformers, "Bert", vocab_size=11)
    randomised(model, rng)
    x = torch.from_numpy(rng.normal(size=(2, *SEQUENCE)))
    expected = model.eval().encoder(x).last_hidden_state.detach().numpy()
    close(from_torch(model.encoder)(x.numpy()), expected, EXACT)
    # A mask that hides nothing, as padding of sequences of one length.
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    masked = model.encoder(x, attention_mask=mask).last_hidden_state.detach().numpy()
    close(from_torch(model.encoder)(x.numpy()), masked, EXACT)


def test_distilbert(transformers, rng):
    config = transformers.DistilBertConfig(
        dim=WIDTH, n_layers=1, n_heads=HEADS, hidden_dim=HIDDEN, vocab_size=11
    )
    check(transformers.DistilBertModel(config).transformer.layer[0], SEQUENCE, rng)


def test_vision_transformers(transformers, rng):
    model = encoder(transformers, "ViT", image_size=8, patch_size=4, qkv_bias=False)
    check(nn.Sequential(*model.layers, model.layernorm), SEQUENCE, rng)


@pytest.mark.parametrize("name", ["CLIPVision", "SiglipVision"])
def test_vision_encoders(transformers, rng, name):
    model = encoder(transformers, name, image_size=8, patch_size=4).eval()
    network = from_torch(model.encoder)
    x = torch.from_numpy(rng.normal(size=(2, *SEQUENCE))).float()
    expected = model.encoder(x).last_hidden_state.detach().numpy()
    close(network(x.numpy()), expected, 1e-5)


def test_text_encoders_whose_mask_is_of_the_model(transformers):
    text = encoder(transformers, "CLIPText", vocab_size=11, bos_token_id=0, eos_token_id=0)
    refuses(text.encoder, r"self_attn: .*in its model a mask restricts it to earlier ones")


def test_attention_without_a_fused_kernel(transformers, rng):
    model = encoder(transformers, "Bert", vocab_size=11)
    model.set_attn_implementation("eager")
    check(model.encoder.layer[0], SEQUENCE, rng)


@pytest.fixture
def llama(transformers):
    return encoder(transformers, "Llama", vocab_size=11, num_key_value_heads=1)


def test_llama(llama, rng):
    network = check(llama.layers[0].mlp, SEQUENCE, rng)
    assert repr(network) == "Network(GatedDense(8 → 12, silu), Dense(12 → 8, identity))"
    check(nn.Sequential(llama.norm, llama.layers[0].mlp), SEQUENCE, rng, SINGLE)
    refuses(llama.layers[0], r"^self_attn: .*LlamaAttention \(its scores depend on")


@pytest.mark.parametrize("name", ["Mistral", "Qwen2", "Gemma", "Olmo2"])
def test_other_gated_layers(transformers, rng, name):
    options = {"head_dim": 4} if name == "Gemma" else {}
    model = encoder(transformers, name, vocab_size=11, pad_token_id=0, **options)
    check(nn.Sequential(model.norm, model.layers[0].mlp), SEQUENCE, rng, SINGLE)
    refuses(model.layers[0], "^self_attn: .*its scores depend on positions")


def test_gates_of_one_matrix(transformers, rng):
    model = encoder(transformers, "Phi3", vocab_size=11, pad_token_id=0)
    network = check(model.layers[0].mlp, SEQUENCE, rng)
    assert repr(network) == "Network(GatedDense(8 → 12, silu), Dense(12 → 8, identity))"


def test_t5(transformers, rng):
    config = transformers.T5Config(
        d_model=WIDTH, d_kv=4, num_heads=HEADS, d_ff=HIDDEN, num_layers=1, vocab_size=11
    )
    block = transformers.T5EncoderModel(config).encoder.block[0]
    check(block.layer[1], SEQUENCE, rng, SINGLE)
    refuses(block, "^layer.0.SelfAttention: .*positions")


@pytest.mark.parametrize(
    "name",
    [
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python"),
        *("gelu_pytorch_tanh", "laplace", "linear", "mish", "quick_gelu", "relu2", "silu"),
    ],
)
def test_activations(transformers, rng, name):
    function = transformers.activations.ACT2FN[name]
    check(nn.Sequential(nn.Linear(5, 6), function), (5,), rng)


def test_whole_models_name_a_part(transformers):
    message = r"from_torch\(torch\.nn\.Sequential\(\*model\.{}\)\).*capture"
    refuses(gpt2(transformers), message.format("h"))
    refuses(encoder(transformers, "Bert", vocab_size=11), message.format("encoder.layer"))


def test_derived_classes_are_not_mistaken(transformers, rng):
    activations = sys.modules["transformers.activations"]

    class Doubled(activations.NewGELUActivation):
        def forward(self, x):
            return super().forward(x) + super().forward(x)

    refuses(nn.Sequential(nn.Linear(3, 3), Doubled()), "^1: ")

    class Other(type(gpt2(transformers).h[0].attn)):
        def forward(self, *args, **options):
            return tuple(-part for part in super().forward(*args, **options)[:1])

    block = gpt2(transformers).h[0]
    block.attn.__class__ = Other
    refuses(block, r"torch\.fx cannot trace attn of model")


def test_what_computes_something_else_is_refused(transformers, rng):
    block = gpt2(transformers).h[0]
    block.attn.scaling = 2.0
    check(block, SEQUENCE, rng)
    # As another version could: of the same name and attributes.
    norm = encoder(transformers, "Llama", vocab_size=11).norm
    original = type(norm).forward
    type(norm).forward = lambda self, x: 3 * original(self, x)
    try:
        refuses(norm, "its own outputs on random inputs differ")
    finally:
        type(norm).forward = original
    block.attn.c_attn = nn.Bilinear(WIDTH, WIDTH, 3 * WIDTH)
    refuses(block, "a Bilinear instead of a dense layer")


def test_masks_are_refused(transformers):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = gpt2(transformers).h[0]
            self.register_buffer("mask", torch.zeros(1, 1, 4, 4))

        def forward(self, x):
            return self.block(x, attention_mask=self.mask)

    refuses(Masked(), "^block.attn: .*further arguments, such as a mask")


def test_the_model_stays_as_it_is(transformers):
    model = gpt2(transformers).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    from_torch(model.h[0])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_lower_precisions(transformers, rng, dtype):
    block = gpt2(transformers).h[0].to(getattr(torch, dtype)).eval()
    network = from_torch(block)
    x = torch.from_numpy(rng.normal(size=(2, *SEQUENCE))).float()
    expected = block.float()(x).detach().numpy()
    close(network(x.numpy()), expected, 1e-5)


@pytest.fixture(scope="module")
def timm():
    return library("timm")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init_values": 0.1, "drop_path": 0.5, "qkv_bias": True, "attn_drop": 0.2},
        {"norm": "RmsNorm", "scale_mlp_norm": True},
        {"mlp": "SwiGLU", "proj_drop": 0.2},
        {"mlp": "SwiGLUPacked"},
    ],
)
def test_timm_blocks(timm, rng, options):
    options = dict(options)
    for kind in ("norm", "mlp"):
        if kind in options:
            options[f"{kind}_layer"] = getattr(timm.layers, options.pop(kind))
    block = timm.models.vision_transformer.Block(WIDTH, HEADS, **options)
    network = check(block, SEQUENCE, rng)
    assert [type(layer) for layer in network] == [Residual] * 2


def test_timm_vision_transformer(timm, rng):
    model = timm.create_model(
        "vit_tiny_patch16_224", embed_dim=WIDTH, num_heads=HEADS, depth=2, img_size=32
    ).double()
    refuses(
        model, r"^patch_embed: .*Sequential\(\*model\.blocks\)\), or use jacrot.readers.capture"
    )
    network = check(nn.Sequential(*model.blocks, model.norm), SEQUENCE, rng)
    images = torch.from_numpy(rng.normal(size=(2, 3, 32, 32)))
    stream = model._pos_embed(model.patch_embed(images))
    close(network(stream.detach().numpy()), model.forward_features(images).detach().numpy(), EXACT)


@pytest.mark.parametrize("fused", [False, True])
def test_timm_attention(timm, rng, fused):
    before = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(fused)
    try:
        check(timm.layers.Attention(WIDTH, HEADS, attn_head_dim=3, dim_out=5), SEQUENCE, rng)
    finally:
        timm.layers.set_fused_attn(bool(before))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"qk_norm": True, "norm_layer": nn.LayerNorm}, "a q_norm"),
        ({"scale_norm": True, "norm_layer": nn.LayerNorm}, "a norm, after"),
        ({"gated": True}, "a gate"),
    ],
)
def test_timm_attentions_that_are_refused(timm, options, message):
    refuses(timm.layers.Attention(WIDTH, HEADS, **options), message)


@pytest.mark.parametrize(
    ("name", "affine"),
    [
        *(("LayerNorm", affine) for affine in (True, False)),
        *(("RmsNorm", affine) for affine in (True, False)),
        ("LayerNormFp32", True),
        ("RmsNormFp32", True),
    ],
)
def test_timm_norms(timm, rng, name, affine):
    check(getattr(timm.layers, name)(WIDTH, affine=affine), SEQUENCE, rng, SINGLE)


@pytest.mark.parametrize("name", ["LayerNorm2d", "RmsNorm2d"])
def test_timm_norms_of_images(timm, rng, name):
    norm = getattr(timm.layers, name)(WIDTH)
    check(nn.Sequential(norm, nn.Conv2d(WIDTH, 3, 2), nn.Flatten()), IMAGE, rng)


@pytest.mark.parametrize("inplace", [False, True])
def test_timm_layer_scale(timm, rng, inplace):
    scale = timm.layers.LayerScale(WIDTH, inplace=inplace)
    network = check(nn.Sequential(nn.Linear(3, WIDTH), scale), (3,), rng)
    assert network.n_layers == 1
    images = timm.layers.LayerScale2d(WIDTH, inplace=inplace)
    check(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), images), IMAGE, rng)


@pytest.mark.parametrize(
    "options", [{}, {"conv_mlp": True}, {"ls_init_value": None}, {"out_chs": 16}]
)
def test_convnext_blocks(timm, rng, options):
    check(timm.models.convnext.ConvNeXtBlock(WIDTH, **options), IMAGE, rng)

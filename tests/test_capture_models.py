"""Models of many kinds: their Jacobians are right, and they stay as they were, bit for bit."""

import contextlib
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import pytest
from builders import framework

from jacrot.readers import capture

torch = framework("torch")
nn, F = torch.nn, torch.nn.functional
checkpoint = torch.utils.checkpoint.checkpoint
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _random_numbers_of_its_own():
    """Seed what PyTorch's modules draw their weights from, for one test."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def draw(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@dataclass
class Case:
    """A model, and its function in two parts written anew, for rows (positions, features)."""

    model: object
    inputs: object
    read: str
    write: str
    before: object  # one input -> rows at read
    after: object  # rows at read, one input -> rows at write
    positions: str = "all"
    tolerance: float = 1e-5
    warns: str | None = None
    context: object = contextlib.nullcontext


CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


class Net(nn.Module):
    """Some modules, and a forward that is a function of them and of the inputs."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = forward

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def linear(n_in, n_out, seed=0, **options):
    layer = nn.Linear(n_in, n_out, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(draw(*parameter.shape, seed=seed) / n_in**0.5)
    return layer


def block_of(forward, **more):
    return Net(forward, embed=linear(3, 6), norm=nn.LayerNorm(6), mlp=linear(6, 6, 1),
               head=linear(6, 4, 2), **more)  # fmt: skip


def embedded(model):
    return lambda x: model.embed(x)[None]


# In-place changes after the activation was read.


@case
def residual_stream_updated_in_place():
    def forward(self, x):
        h = self.embed(x)
        h += self.mlp(self.norm(h))
        return self.head(h)

    model = block_of(forward)

    def after(a, x):
        return model.head(model.embed(x) + model.mlp(model.norm(a)))

    return Case(model, draw(7, 3), "norm:input", "head", embedded(model), after)


@case
def residual_stream_with_an_outlier_in_bfloat16():
    def forward(self, x):
        h = self.embed(x) + torch.tensor([100, 0, 0, 0, 0, 0], dtype=x.dtype)
        h += self.mlp(self.norm(h))
        return self.head(h)

    model = block_of(forward).to(torch.bfloat16)
    double = block_of(forward).double()
    double.load_state_dict(model.state_dict())
    outlier = torch.tensor([100, 0, 0, 0, 0, 0])

    def before(x):
        return (model.embed(x) + outlier.to(x.dtype))[None].double()

    def after(a, x):
        return double.head(before(x) + double.mlp(double.norm(a)))

    inputs = draw(7, 3).to(torch.bfloat16)
    return Case(model, inputs, "norm:input", "head", before, after, tolerance=0.05)


@case
def identity_whose_argument_changes_in_place():
    def forward(self, x):
        h = self.embed(x)
        update = torch.tanh(self.mlp(self.through(h)))
        h += update
        return self.head(h)

    model = block_of(forward, through=nn.Identity())

    def after(a, x):
        return model.head(model.embed(x) + torch.tanh(model.mlp(a)))

    return Case(model, draw(7, 3), "through", "head", embedded(model), after)


@case
def read_itself_changes_in_place():
    def forward(self, x):
        h = self.embed(x)
        h += self.mlp(torch.tanh(h))
        h.mul_(2).sigmoid_()
        return self.head(h)

    model = block_of(forward)

    def after(a, x):
        return model.head(torch.sigmoid(2 * (a + model.mlp(torch.tanh(a)))))

    return Case(model, draw(7, 3), "embed", "head", embedded(model), after)


@case
def slices_and_views_change_in_place():
    def forward(self, x):
        h = self.embed(x)
        h[..., :2] *= h[..., 2:4].clone()
        h.view(-1, 2, 3)[:, 1].tanh_()
        h.flatten(1)[:, 5] += 1
        return self.head(h)

    model = block_of(forward)

    def after(a, x):
        first, rest = a[:, :2] * a[:, 2:4], a[:, 2:3]
        last = torch.tanh(a[:, 3:]) + torch.tensor([0.0, 0.0, 1.0])
        return model.head(torch.cat([first, rest, last], 1))

    # Training it is an error, "modified by an inplace operation"; its derivatives exist.
    return Case(
        model,
        draw(7, 3),
        "embed",
        "head",
        embedded(model),
        after,
        warns="one input after",
    )


@case
def residual_network_with_activations_in_place():
    convolutions = [nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)]

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        out = self.convolution(x)
        out += x
        return self.relu2(out)

    norm = nn.BatchNorm2d(3)
    norm.running_mean.copy_(draw(3))
    model = Net(forward, stem=convolutions[0], norm=norm, convolution=convolutions[1],
                relu=nn.SiLU(inplace=True), relu2=nn.ELU(inplace=True)).train()  # fmt: skip

    def before(x):
        normal = F.batch_norm(model.stem(x[None]), norm.running_mean, norm.running_var)
        return F.silu(normal)[0].flatten(1).T

    def after(a, x):
        image = a.T.reshape(1, 3, 4, 5)
        return F.elu(model.convolution(image) + image)[0].flatten(1).T

    return Case(model, draw(3, 2, 4, 5), "relu", "relu2", before, after, "same")


# Precision.


@case
def half_precision():
    model = nn.Sequential(linear(3, 6), nn.GELU(), linear(6, 4, 1)).to(torch.float16)
    single = nn.Sequential(linear(3, 6), nn.GELU(), linear(6, 4, 1))

    def after(a, x):
        return single[1:](a)

    return Case(model, draw(5, 3).half(), "0", "", lambda x: model[0](x)[None].float(), after,
                tolerance=0.01)  # fmt: skip


@case
def double_precision():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1)).double()
    inputs = draw(5, 3, dtype=torch.float64)
    return Case(model, inputs, "0", "2", lambda x: model[0](x)[None], lambda a, x: model[1:](a),
                tolerance=1e-12)  # fmt: skip


@case
def autocast_inside():
    def forward(self, x):
        h = self.embed(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = self.head(torch.tanh(self.mlp(h)))
        return h.float()

    model = block_of(forward)

    def after(a, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model.head(torch.tanh(model.mlp(a))).float()

    return Case(model, draw(5, 3), "embed", "", embedded(model), after, tolerance=1e-6,
                warns="under autocast")  # fmt: skip


@case
def autocast_outside():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))

    def cast():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def before(x):
        with cast():
            return model[0](x)[None].float()

    def after(a, x):
        with cast():
            return model[1:](a.to(torch.bfloat16)).float()

    return Case(model, draw(5, 3), "0", "2", before, after, tolerance=1e-6,
                warns="under autocast", context=cast)  # fmt: skip


# Modules: shared, tied, parametrized, compiled, scripted.


@case
def module_that_runs_twice_in_between():
    model = Net(
        lambda self, x: self.head(self.mlp(torch.tanh(self.mlp(torch.tanh(self.embed(x)))))),
        embed=linear(3, 6), mlp=linear(6, 6, 1), head=linear(6, 4, 2),
    )  # fmt: skip

    def after(a, x):
        return model.head(model.mlp(torch.tanh(model.mlp(torch.tanh(a)))))

    return Case(model, draw(5, 3), "embed", "head", embedded(model), after)


@case
def tied_weights_and_tokens_with_padding():
    model = Net(
        lambda self, ids: self.head(torch.tanh(self.mlp(self.embed(ids)))),
        embed=nn.Embedding(10, 6), mlp=linear(6, 6), head=nn.Linear(6, 10, bias=False),
    )  # fmt: skip
    model.head.weight = model.embed.weight
    weight = model.embed.weight
    ids = torch.arange(15).reshape(3, 5) % 10
    return Case(model, {"ids": ids}, "embed", "head", lambda ids: weight[ids],
                lambda a, ids: torch.tanh(model.mlp(a)) @ weight.T, "same")  # fmt: skip


@case
def parametrized_in_several_ways():
    parametrizations = nn.utils.parametrizations
    model = nn.Sequential(
        parametrizations.weight_norm(linear(3, 6)),
        nn.Tanh(),
        parametrizations.spectral_norm(linear(6, 6, 1)),
        nn.Tanh(),
        parametrizations.orthogonal(linear(6, 4, 2)),
    ).train()
    # A spectral norm in evaluation mode uses the vectors that it has.
    norm = model[2].parametrizations.weight
    weight = norm.original / (norm[0]._u @ norm.original @ norm[0]._v)
    last = model[4].weight.detach().clone()

    def after(a, x):
        h = torch.tanh(F.linear(torch.tanh(a), weight.detach(), model[2].bias))
        return F.linear(h, last, model[4].bias)

    return Case(model, draw(5, 3), "0", "4", lambda x: model[0](x)[None], after)


@case
def weight_norm_of_the_old_kind():
    with pytest.warns(FutureWarning):
        middle = nn.utils.weight_norm(linear(6, 6, 1))
    model = nn.Sequential(linear(3, 6), nn.Tanh(), middle)
    weight = (middle.weight_g * F.normalize(middle.weight_v, dim=1)).detach()
    return Case(model, draw(5, 3), "0", "2", lambda x: model[0](x)[None],
                lambda a, x: F.linear(torch.tanh(a), weight, middle.bias))  # fmt: skip


@case
def weights_made_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), linear(6, 4, 1))
    copy = nn.Sequential(linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), linear(6, 4, 1)).eval()
    copy.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return Case(model, draw(5, 3), "0", "3", lambda x: copy[0](x)[None],
                lambda a, x: copy[1:](a))  # fmt: skip


@case
def scripted_in_between():
    class Squash(nn.Module):
        def forward(self, x):
            return torch.tanh(x) * x

    model = nn.Sequential(linear(3, 6), torch.jit.script(Squash()), linear(6, 4, 1))
    return Case(model, draw(5, 3), "0", "2", lambda x: model[0](x)[None],
                lambda a, x: model[2](torch.tanh(a) * a))  # fmt: skip


@case
def compiled_as_a_whole_and_in_part():
    inner = nn.Sequential(linear(6, 6, 1), nn.Tanh())
    model = nn.Sequential(linear(3, 6), torch.compile(inner), linear(6, 4, 2))
    return Case(torch.compile(model), draw(5, 3), "0", "1.0", lambda x: model[0](x)[None],
                lambda a, x: inner[0](a))  # fmt: skip


# Hooks.


@case
def hooks_that_replace_what_modules_read_and_return():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 6, 1), nn.Tanh(), linear(6, 4, 2))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    model[2].register_forward_pre_hook(lambda module, args: (args[0] ** 2,))
    model[4].register_forward_hook(lambda module, args, output: output + args[0][..., :4])

    def after(a, x):
        h = torch.tanh(model[2].weight @ torch.tanh(a[0]) ** 2 + model[2].bias)
        return (model[4].weight @ h + model[4].bias + h[:4])[None]

    def before(x):
        return 2 * F.linear(x, model[0].weight, model[0].bias)[None]

    return Case(model, draw(5, 3), "0", "4", before, after)


@case
def hooks_of_the_backward_pass():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))
    model[1].register_full_backward_hook(lambda module, given, got: (given[0] * 100,))
    model[2].register_full_backward_pre_hook(lambda module, got: (got[0] * 0,))
    model[2].weight.register_hook(lambda gradient: gradient * 3)
    return Case(model, draw(5, 3), "0", "2", lambda x: F.linear(x, *model[0].parameters())[None],
                lambda a, x: F.linear(torch.tanh(a), *model[2].parameters()))  # fmt: skip


# Activations that are not the same tensor.


@dataclass(frozen=True)
class Result:
    label: str
    values: tuple
    more: object = None


@case
def nested_tuples_dictionaries_and_dataclasses():
    class Nest(nn.Module):
        def forward(self, x):
            return Result("nested", ({"of": OrderedDict(first=torch.sin(x))}, [x]))

    class Unnest(nn.Module):
        def forward(self, result):
            return [{"deep": (result.values[0]["of"]["first"] ** 2, result.label)}]

    model = Net(
        lambda self, x: self.last(self.unnest(self.nest(self.embed(x)))[0]["deep"][0]),
        embed=linear(3, 6), nest=Nest(), unnest=Unnest(), last=nn.Tanh(),
    )  # fmt: skip
    return Case(model, draw(5, 3), "nest", "unnest", lambda x: torch.sin(model.embed(x))[None],
                lambda a, x: a**2)  # fmt: skip


@case
def module_that_appends_to_a_list_it_is_passed():
    class Keep(nn.Module):
        def forward(self, x, kept):
            kept.append(torch.tanh(x))
            return x * 2

    def forward(self, x):
        kept = []
        x = self.keep(self.embed(x), kept)
        return self.head(x * kept[0])

    model = Net(forward, embed=linear(3, 6), keep=Keep(), head=linear(6, 4, 1))
    return Case(model, draw(5, 3), "keep:input", "head", embedded(model),
                lambda a, x: model.head(2 * a * torch.tanh(a)))  # fmt: skip


@case
def several_inputs_one_of_them_without_rows():
    def forward(self, x, *, mask, scale):
        x *= scale
        return self.head(torch.tanh(self.embed(x)) * mask)

    model = Net(forward, embed=linear(3, 6), head=linear(6, 4, 1))
    inputs = {"x": draw(5, 3), "mask": draw(5, 6, seed=3), "scale": torch.tensor(2.0)}
    return Case(model, inputs, "embed", "", lambda x, mask, scale: model.embed(scale * x)[None],
                lambda a, x, mask, scale: model.head(torch.tanh(a) * mask))  # fmt: skip


# Sequences.


@case
def recurrent_network():
    model = Net(lambda self, x: self.head(self.lstm(self.embed(x))[0]), embed=linear(3, 5),
                lstm=nn.LSTM(5, 4, batch_first=True), head=linear(4, 2, 1))  # fmt: skip
    return Case(model, draw(3, 4, 3), "embed", "head", model.embed,
                lambda a, x: model.head(model.lstm(a)[0]), warns="one input after")  # fmt: skip


@case
def last_state_of_a_recurrent_network():
    model = Net(lambda self, x: self.head(self.gru(self.embed(x))[1][0]), embed=linear(3, 5),
                gru=nn.GRU(5, 4, batch_first=True), head=linear(4, 2, 1))  # fmt: skip
    return Case(model, draw(3, 4, 3), "gru:input", "head", model.embed,
                lambda a, x: model.head(model.gru(a)[1]), warns="one input after")  # fmt: skip


@case
def transformer():
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = Net(lambda self, x: self.encoder(self.embed(x)), embed=linear(3, 6), encoder=encoder)

    def after(a, x):
        attention = encoder.layers[1].self_attn
        h = a + attention(*[encoder.layers[1].norm1(a)] * 3, need_weights=False)[0]
        last = encoder.layers[1]
        return h + last.linear2(torch.relu(last.linear1(last.norm2(h))))

    def before(x):
        return encoder.layers[0].eval()(model.embed(x)[None])[0]

    return Case(model.train(), draw(2, 4, 3), "encoder.layers.0", "encoder", before, after)


@case
def causal_attention_at_the_same_token():
    model = Net(
        lambda self, x: self.out(F.scaled_dot_product_attention(
            self.q(x)[:, None], self.k(x)[:, None], self.v(x)[:, None], is_causal=True)[:, 0]),
        q=linear(3, 6), k=linear(3, 6, 1), v=linear(3, 6, 2), out=linear(6, 4, 3),
    )  # fmt: skip

    def after(a, x):
        scores = model.q(x) @ model.k(x).T / 6**0.5
        scores = scores.masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
        return model.out(scores.softmax(-1) @ a)

    return Case(model, draw(3, 4, 3), "v", "out", model.v, after, "same")


@case
def time_before_inputs_inside():
    model = Net(
        lambda self, x: self.head(torch.tanh(self.embed(x.transpose(0, 1)))).transpose(0, 1),
        embed=linear(3, 6), head=linear(6, 4, 1),
    )  # fmt: skip
    return Case(model, draw(3, 5, 3), "embed", "head", model.embed,
                lambda a, x: model.head(torch.tanh(a)), "same")  # fmt: skip


@case
def fourier_mixing():
    model = Net(lambda self, x: self.head(torch.fft.fft2(self.embed(x)).real),
                embed=linear(3, 6), head=linear(6, 4, 1))  # fmt: skip
    return Case(model, draw(2, 4, 3), "embed", "head", model.embed,
                lambda a, x: model.head(torch.fft.fft2(a).real))  # fmt: skip


# Memory saved, work saved, state.


def checkpointed(reentrant):
    def body(self):
        return lambda h: torch.tanh(self.up(torch.tanh(self.down(h))))

    def forward(self, x):
        return self.head(checkpoint(body(self), self.embed(x), use_reentrant=reentrant))

    model = Net(forward, embed=linear(3, 6), down=linear(6, 5, 1), up=linear(5, 6, 2),
                head=linear(6, 4, 3))  # fmt: skip
    return Case(model, draw(5, 3), "down", "head", lambda x: model.down(model.embed(x))[None],
                lambda a, x: model.head(torch.tanh(model.up(torch.tanh(a)))))  # fmt: skip


@case
def read_inside_a_checkpoint():
    return checkpointed(reentrant=False)


@case
def read_inside_a_reentrant_checkpoint():
    return checkpointed(reentrant=True)


@case
def write_inside_a_checkpoint():
    made = checkpointed(reentrant=False)
    return replace(made, write="up", after=lambda a, x: made.model.up(torch.tanh(a)))


@case
def mixture_of_experts():
    def forward(self, x):
        h = self.embed(x)
        out = torch.zeros_like(h)
        choice = self.gate(h).argmax(-1)
        for i, expert in enumerate(self.experts):
            rows = (choice == i).nonzero()[:, 0]
            out[rows] = torch.tanh(expert(h[rows]))
        return self.head(out)

    experts = nn.ModuleList(linear(6, 6, seed) for seed in range(5, 8))
    model = Net(forward, embed=linear(3, 6), gate=linear(6, 3, 1), experts=experts,
                head=linear(6, 4, 2))  # fmt: skip

    def after(a, x):
        return model.head(torch.tanh(experts[int(model.gate(a)[0].argmax())](a)))

    return Case(
        model,
        draw(9, 3),
        "embed",
        "head",
        embedded(model),
        after,
        warns="one input after",
    )


@case
def control_flow_and_numpy():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return torch.as_tensor(x.detach().numpy() ** 3)

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            return torch.as_tensor(gradient.numpy() * 3 * x.numpy() ** 2)

    model = Net(lambda self, x: self.head(torch.cat([Cube.apply(row[None]) for row in
                self.embed(x)])), embed=linear(3, 6), head=linear(6, 4, 1))  # fmt: skip
    return Case(model, draw(5, 3), "embed", "head", embedded(model),
                lambda a, x: model.head(a**3), warns="one derivative")  # fmt: skip


@case
def state_that_every_run_changes():
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
            self.register_buffer("mean", torch.zeros(6))
            self.history, self.cache, self.plain = [], {"kept": [1]}, torch.zeros(2)

        def forward(self, x):
            self.count += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.plain[0] += 1
            self.history.append(x)
            self.cache["kept"].append(x)
            self.last = x
            # Nothing is left of an earlier run.
            return x * self.count * self.plain[0] * len(self.history)

    model = nn.Sequential(linear(3, 6), Stateful(), nn.Dropout(0.5), nn.Tanh()).train()
    return Case(model, draw(5, 3), "0", "3", lambda x: model[0](x)[None],
                lambda a, x: torch.tanh(a))  # fmt: skip


@case
def observers_of_quantization_aware_training():
    observer = torch.ao.quantization.FakeQuantize(
        observer=torch.ao.quantization.MovingAverageMinMaxObserver
    )
    observer.disable_fake_quant()
    model = nn.Sequential(linear(3, 6), observer, nn.Tanh())
    return Case(model, draw(5, 3), "0", "2", lambda x: model[0](x)[None],
                lambda a, x: torch.tanh(a), warns="one input after")  # fmt: skip


@case
def called_in_inference_mode():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))
    with torch.inference_mode():
        inputs = draw(5, 3).clone()
    return Case(model, inputs, "0", "2", lambda x: model[0](x)[None],
                lambda a, x: model[1:](a), context=torch.inference_mode)  # fmt: skip


@case
def gradients_everywhere():
    model = nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 4, 1))
    model(draw(2, 3, seed=9)).sum().backward()
    model[2].bias.requires_grad_(False)
    inputs = (draw(5, 3).requires_grad_() * 2,)
    return Case(model, inputs, "0", "2", lambda x: model[0](x)[None], lambda a, x: model[1:](a))


@case
def convolutions_pooled_to_logits():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(3, 5),
    )  # fmt: skip

    def after(a, x):
        return model[1:](a.T.reshape(1, 4, 5, 4))

    return Case(model, draw(3, 2, 7, 6), "0", "", lambda x: model[0](x[None])[0].flatten(1).T,
                after)  # fmt: skip


def bits(tensor):
    return None if tensor is None else tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def contents(value):
    """List what is in a container, by identity."""
    if isinstance(value, dict):
        return {key: contents(item) for key, item in value.items()}
    if isinstance(value, (list, set)):
        return [contents(item) for item in value]
    return id(value)


def state_of(model):
    """Everything that a model is: its tensors, bit for bit, and its attributes, by identity."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors |= {
        f"{name}.{attribute}": value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }
    return {
        "bits": {name: bits(tensor).tolist() for name, tensor in tensors.items()},
        "gradients": {name: (id(t.grad) if t.is_leaf and t.grad is not None else None,
                             bits(t.grad).tolist() if t.is_leaf and t.grad is not None else None,
                             t.requires_grad) for name, t in tensors.items()},
        "modes": [module.training for module in model.modules()],
        "attributes": [contents(vars(module)) for module in model.modules()
                       if not isinstance(module, torch.jit.ScriptModule)],
        "random": bits(torch.get_rng_state()).tolist(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "checkpoint": contents(vars(torch.utils.checkpoint)),
    }  # fmt: skip


def of_one(inputs, i):
    """Return the positional and keyword arguments of one input."""
    if isinstance(inputs, dict):
        return (), {k: v[i].detach() if v.ndim else v for k, v in inputs.items()}
    tensors = inputs if isinstance(inputs, tuple) else [inputs]
    return tuple(tensor[i].detach().clone() for tensor in tensors), {}


# Importing the compiler takes seconds.
SLOW = {"compiled_as_a_whole_and_in_part": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in CASES])
def test_jacobians_and_the_state_of_the_model(name):
    made = CASES[name]()
    model, inputs = made.model, made.inputs
    expectation = contextlib.nullcontext()
    if made.warns:
        expectation = pytest.warns(UserWarning, match=made.warns)
    before = state_of(model)
    with made.context(), expectation:
        captured = capture(model, inputs, made.read, made.write, positions=made.positions)
    assert state_of(model) == before
    model.eval()
    X, J = [], []
    for i in np.unique(captured.samples[:, 0]):
        args, kwargs = of_one(inputs, i)
        with torch.no_grad():
            rows = made.before(*args, **kwargs).detach()
        full = torch.autograd.functional.jacobian(
            lambda a, args=args, kwargs=kwargs: made.after(a, *args, **kwargs), rows
        )
        for position in captured.samples[captured.samples[:, 0] == i, 1]:
            X.append(rows[position])
            each = full[:, :, position]
            J.append(each[position] if made.positions == "same" else each.squeeze(0))
    for actual, expected in ((captured.X, X), (captured.jacobians, J)):
        expected = torch.stack(expected).numpy()
        assert actual.shape == expected.shape
        atol = made.tolerance * abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)

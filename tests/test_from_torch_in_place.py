"""Modules of PyTorch that change tensors in place, against their own forward pass."""

import numpy as np
import pytest
from builders import framework

from jacrot.readers import from_torch

torch = framework("torch")
nn, functional = torch.nn, torch.nn.functional


class Forward(nn.Module):
    """A convolution, what is done with its output, and two that read what is left."""

    def __init__(self, function, rows=False):
        super().__init__()
        make = (lambda: nn.Linear(3, 3)) if rows else (lambda: nn.Conv2d(3, 3, 3, padding=1))
        self.first, self.read, self.other = make(), make(), make()
        self.relu, self.flat = nn.ReLU(inplace=True), nn.Flatten()
        self.norm = nn.BatchNorm1d(3) if rows else nn.BatchNorm2d(3)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def inputs(rows):
    shape = (4, 3) if rows else (4, 3, 6, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def model_of(function, rows=False):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Forward(function, rows).eval()


def same(model, x):
    """Compare with the module itself, which may change its input."""
    before = x.clone()
    network = from_torch(model)
    found = network(x.numpy())
    assert torch.equal(x, before)
    with torch.no_grad():
        expected = model(x.clone()).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def residual(m, x):
    h = m.first(x)
    y = m.relu(h)
    return m.read(y) + m.other(h)


def called_twice(m, x):
    h = m.first(x)
    y = m.first(x)
    h.relu_()
    return m.read(h) + m.other(y)


def same_module_twice(m, x):
    h = m.relu(m.first(x))
    y = m.relu(m.read(h))
    return y + h


def the_input(m, x):
    x.relu_()
    return m.first(x)


def read_before(m, x):
    h = m.first(x)
    y = m.read(h)
    h += y
    return m.other(h) + y


def through_dropout(m, x):
    h = m.first(x)
    functional.dropout(h, 0.5, m.training).relu_()
    return m.read(h) + h


def through_identity(m, x):
    h = nn.functional.relu(m.norm(m.first(x)), inplace=True)
    y = h
    y *= torch.sigmoid(y)
    return m.read(h) + y


def of_a_clone(m, x):
    h = m.first(x)
    h.clone().relu_()
    return m.read(h)


def of_a_sum(m, x):
    h = m.first(x)
    y = h + m.read(h)
    y += h
    functional.leaky_relu_(y, 0.3)
    return m.other(y) + h


def view_read_no_more(m, x):
    h = m.first(x)
    y = h.flatten(1)
    y.relu_()
    return y


@pytest.mark.parametrize(
    "function",
    [
        residual,
        called_twice,
        same_module_twice,
        the_input,
        read_before,
        through_dropout,
        through_identity,
        of_a_clone,
        of_a_sum,
        view_read_no_more,
    ],
)
@pytest.mark.parametrize("rows", [False, True])
def test_changes_in_place_are_followed(function, rows):
    same(model_of(function, rows), inputs(rows))


def changed(change):
    """Compute with `change` of a convolution's output, which is read afterwards."""

    def function(m, x):
        h = m.first(x)
        change(m, h)
        return m.read(h) + m.other(h)

    return function


VIEWS = {
    "torch.flatten": lambda m, h: torch.relu_(torch.flatten(h, 1)),
    "flatten by name": lambda m, h: torch.flatten(input=h, start_dim=1).relu_(),
    "nn.Flatten": lambda m, h: m.flat(h).relu_(),
    "module": lambda m, h: m.relu(h.flatten(1)),
    "view": lambda m, h: h.view(h.size(0), -1).relu_(),
    "reshape": lambda m, h: functional.relu(h.reshape(h.shape[0], -1), inplace=True),
    "slice": lambda m, h: h[:, :, ::2, ::2].relu_(),
    "iadd": lambda m, h: h[..., ::2, ::2].add_(h[..., ::2, ::2]),
    "part of a part": lambda m, h: h[:, :, ::2, ::2][:, :, ::2, ::2].tanh_(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_changes_of_a_view_are_refused(view):
    with pytest.raises(ValueError, match=r"^read: .*shares memory with .* was changed in place"):
        from_torch(model_of(changed(VIEWS[view])))


def test_a_view_of_what_was_changed_is_refused():
    def function(m, x):
        h = m.first(x)
        y = h.flatten(1)
        h.relu_()
        return y

    with pytest.raises(ValueError, match=r"model returns .* shares memory with first"):
        from_torch(model_of(function))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m, h: h.__setitem__((slice(None), 0), 0), "setitem"),
        (lambda m, h: h[:, :1].copy_(h[:, 1:2]), "getitem"),
        (lambda m, h: h.copy_(m.read(h)), "copy_"),
        (lambda m, h: h.transpose(1, 2).relu_(), "transpose"),
        (lambda m, h: h.permute(0, 2, 3, 1).relu_(), "shares memory with permute"),
        (lambda m, h: h.unsqueeze(0).relu_(), "unsqueeze"),
        (lambda m, h: h.chunk(3, 1)[0].relu_(), "chunk"),
        (lambda m, h: h.expand(4, 3, 6, 6).relu_(), "expand"),
        (lambda m, h: h.masked_fill_(h < 0, 0), "lt"),
        (lambda m, h: h.data.relu_(), "getattr"),
        (lambda m, h: h.zero_(), "zero_"),
        (lambda m, h: h.detach().relu_(), "detach"),
        (lambda m, h: torch.relu(h, out=h), "torch.fx cannot trace"),
        (lambda m, h: torch.tanh(m.read(h), out=h), "with out="),
        (lambda m, h: torch.add(h, h, out=h), "with out="),
        (lambda m, h: m.first.bias.add_(1), "add_"),
        (lambda m, h: m.first.weight.data.mul_(2), "getattr"),
    ],
)
def test_changes_that_are_refused_by_name(change, name):
    with pytest.raises(ValueError, match=name):
        from_torch(model_of(changed(change)))


@pytest.mark.parametrize("operation", ["sub", "truediv", "pow", "matmul", "mod"])
def test_other_changes_by_operators_are_refused(operation):
    import operator

    def change(m, h):
        getattr(operator, f"i{operation}")(h, m.read(h))

    with pytest.raises(ValueError, match=f"this i{operation}"):
        from_torch(model_of(changed(change)))


def test_copies_are_told_from_views_on_an_example():
    def copied(m, x):
        part = m.first(x)[:, :, ::2, ::2]
        part.contiguous().relu_()
        return m.read(part)

    def not_copied(m, x):
        h = m.first(x)
        h.contiguous().relu_()
        return m.read(h) + h

    def of_a_slice(m, x):
        part = m.first(x)[:, :, ::2, ::2]
        part.reshape(part.size(0), -1).relu_()
        return m.read(part)

    for function in (copied, not_copied, of_a_slice):
        same(model_of(function), inputs(False))


def test_what_depends_on_strides_is_refused_without_an_example():
    model = model_of(changed(lambda m, h: h.contiguous().relu_()))
    # No image that is drawn has the size that this reads.
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(3 * 7 * 9, 2))
    with pytest.raises(ValueError, match="or may share it"):
        from_torch(model)


def test_what_an_attention_returns_is_one_tensor():
    class Attended(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.read = nn.Linear(4, 4)

        def forward(self, x):
            attended = self.attention(x, x, x)
            first = attended[0]
            first.relu_()
            return self.read(attended[0]) + first

    same(Attended().eval(), torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)))

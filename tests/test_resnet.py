"""ResNet-20 with its real weights, against PyTorch."""

import os
from pathlib import Path

import numpy as np
import pytest
from builders import example, framework, rotation

torch = framework("torch")
WEIGHTS = Path(os.environ.get("JACROT_DATA", ".")) / "networks" / "resnet20_cifar10.npz"
pytestmark = pytest.mark.skipif(
    not WEIGHTS.exists(), reason="JACROT_DATA is no folder with networks/resnet20_cifar10.npz"
)


class Block(torch.nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(n_out)
        self.conv2 = torch.nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(n_out)
        self.added = (n_out - n_in) // 2
        self.stride = stride

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        kept = x[:, :, :: self.stride, :: self.stride]
        kept = torch.nn.functional.pad(kept, (0, 0, 0, 0, self.added, self.added))
        return torch.relu(y + kept)


class ResNet20(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(16)
        n_in = 16
        for stage, n_out in ((1, 16), (2, 32), (3, 64)):
            blocks = []
            for index in range(3):
                blocks.append(Block(n_in, n_out, 2 if stage > 1 and index == 0 else 1))
                n_in = n_out
            setattr(self, f"layer{stage}", torch.nn.Sequential(*blocks))
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def models():
    script = example("resnet")
    with np.load(WEIGHTS) as file:
        arrays = dict(file)
    module = ResNet20()
    module.load_state_dict({name: torch.as_tensor(array) for name, array in arrays.items()}, False)
    return module.eval(), script.resnet(arrays), script.photographs(6, seed=0)


def test_logits_are_those_of_pytorch(models):
    module, network, X = models
    with torch.no_grad():
        expected = module(torch.as_tensor(X, dtype=torch.float32)).numpy()
    logits = network(X.astype(np.float32))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_jacobians_are_those_of_pytorch(models):
    module, network, X = models
    hidden = network[:8](X[:1])
    part = module.layer3[1].double()
    expected = torch.func.jacrev(part)(torch.as_tensor(hidden)).detach().numpy()[:, :, :, :, 0]
    jacobians = network[8:9].jacobians(hidden)
    np.testing.assert_allclose(jacobians, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    module.float()


def test_a_rotation_of_every_stage_keeps_the_function(models):
    _, network, X = models
    widths = [3, *[16] * 4, *[32] * 3, *[64] * 3]
    turned = network.rotated({site: rotation(width) for site, width in enumerate(widths)})
    np.testing.assert_allclose(turned(X), network(X), rtol=0, atol=1e-8)
    # The stream of a stage in one basis: its shortcuts are the identity again.
    stage = network.rotated(dict.fromkeys(range(8, 11), rotation(64)))
    assert stage.layers[8].layers[0].branch.n_inputs == 64
    np.testing.assert_allclose(stage(X), network(X), rtol=0, atol=1e-8)

"""Alternative methods, each imported where it is used."""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
import pymanopt
from pymanopt.manifolds import Product, Stiefel
from pymanopt.optimizers import ConjugateGradient


def pymanopt_reference(J, start, smoothing=0.01, n_iter=200):
    """Run a plain implementation: pymanopt's conjugate gradient with defaults, and autograd."""
    _, m, n = J.shape
    manifold = Product([Stiefel(m, m), Stiefel(n, n)])

    @pymanopt.function.autograd(manifold)
    def cost(P, Q):
        X = anp.matmul(anp.matmul(P, J), Q.T)
        return anp.mean(anp.sqrt(X**2 + smoothing**2))

    optimizer = ConjugateGradient(max_iterations=n_iter, max_time=np.inf, verbosity=0)
    result = optimizer.run(pymanopt.Problem(manifold, cost), initial_point=start)
    return result.point


def torch_adam(J, n_iter=500, smoothing=0.01, learning_rate=0.03, geo=False):
    """Run full-batch Adam on PyTorch's (or geotorch's) orthogonal parametrization."""
    import torch

    torch.manual_seed(0)
    stack = torch.from_numpy(J.astype(np.float32))
    layers = []
    for size in J.shape[1:]:
        layer = torch.nn.Linear(size, size, bias=False)
        torch.nn.init.eye_(layer.weight)
        if geo:
            import geotorch

            geotorch.orthogonal(layer, "weight")
            layer.weight = torch.eye(size)
        else:
            torch.nn.utils.parametrizations.orthogonal(layer, "weight")
            layer.weight = torch.eye(size)
        layers.append(layer)
    optimizer = torch.optim.Adam([p for layer in layers for p in layer.parameters()], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_iter)
    for _ in range(n_iter):
        optimizer.zero_grad()
        X = layers[0].weight @ stack @ layers[1].weight.T
        torch.sqrt(X**2 + smoothing**2).mean().backward()
        optimizer.step()
        schedule.step()
    return [layer.weight.detach().numpy().astype(np.float64) for layer in layers]


def picard_o(rows):
    """Run Picard-O, orthogonal ICA, on the rows as they are."""
    from picard import picard

    _, W, _ = picard(
        rows.T.copy(), ortho=True, extended=False, whiten=False, centering=False, random_state=0
    )
    return W


def fast_ica(rows):
    """Run scikit-learn's FastICA on the rows as they are."""
    from sklearn.decomposition import FastICA

    return FastICA(whiten=False, random_state=0).fit(rows).components_


def statsmodels_rotation(rows, method):
    """Run statsmodels' quartimax or varimax (gradient projection)."""
    from statsmodels.multivariate.factor_rotation import rotate_factors

    return rotate_factors(rows, method)[1].T


def factor_analyzer_rotation(rows, method):
    """Run factor_analyzer's quartimax or varimax."""
    from factor_analyzer.rotator import Rotator

    rotator = Rotator(method=method)
    rotator.fit_transform(rows)
    return rotator.rotation_.T


ONE_SIDED = {
    "Picard-O": picard_o,
    "FastICA": fast_ica,
    "statsmodels quartimax": lambda rows: statsmodels_rotation(rows, "quartimax"),
    "statsmodels varimax": lambda rows: statsmodels_rotation(rows, "varimax"),
    "factor_analyzer quartimax": lambda rows: factor_analyzer_rotation(rows, "quartimax"),
    "factor_analyzer varimax": lambda rows: factor_analyzer_rotation(rows, "varimax"),
}

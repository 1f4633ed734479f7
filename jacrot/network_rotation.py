"""One rotation for every hidden layer of a network, found jointly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import _fit_context
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from jacrot._arrays import Array, Matrix
from jacrot._estimator import NetworkEstimator, mean_hoyer, shared, with_effect
from jacrot._random import random_source
from jacrot._threads import one_blas_thread
from jacrot.criteria import Criterion, get_criterion
from jacrot.frame import canonical_axes, drawn_for_search, scaled_for
from jacrot.jacobians import Jacobians
from jacrot.network import Network
from jacrot.network_jacobians import drawn_pairs, network_jacobians
from jacrot.objective import Term
from jacrot.positions import at_positions
from jacrot.problem import Problem
from jacrot.rotation import SCORE_SEED, JacobianSparsityRotation
from jacrot.subspace import effective_basis, nearest_rotation

Rotations = dict[int, Matrix]


@dataclass(frozen=True)
class _LayerJacobians:
    """The Jacobians of one layer, without samples of no effect, and their norms."""

    stack: Jacobians
    norms: Matrix
    # E[JᵀJ] and E[JJᵀ], every sample scaled alike.
    reading: Matrix
    writing: Matrix


class NetworkRotation(NetworkEstimator):
    """Rotations of all hidden layers of a network that make the Jacobian of every layer sparse.

    Finds an orthogonal ``R_l`` for every site ``l`` between two layers that minimise ::

        Σ_l mean_i 1/(m_l n_l) Σ φ(R_{l+1} J_{l,i} R_lᵀ / rms(J_{l,i}))

    jointly, where ``J_{l,i}`` is the Jacobian of layer ``l`` at sample ``i``: every rotation is
    shared by the Jacobian that reads the site and the one that writes it. Inputs and logits stay
    in their own basis, ``R_0 = I`` and ``R_L = I``, unless they are to be rotated too. The result
    is never worse than the rotations of the layers one by one.

    Used as ``NetworkRotation(network).fit(X)`` or ``NetworkRotation().fit(weights, X)``, where `X`
    are the inputs of the network.

    Parameters
    ----------
    network : Network, array-like, sequence, mapping or callable, default=None
        The whole network, of two layers at least; see :class:`jacrot.Network`. ``None`` if it is
        given to ``fit``.
    activation : str, callable or list of them, default="relu"
        Applied after every layer of raw weights; a list gives one per layer.
    rotate_input, rotate_output : bool, default=False
        Whether site 0, the inputs, and site ``n_layers``, the logits, are rotated too.
    criterion : {"hoyer", "l1", "logcosh", "quartimax"} or callable, default="hoyer"
        ``φ``; see :class:`jacrot.JacobianSparsityRotation`.
    n_init : int, default=1
        Number of searches, the best of which is kept. Further ones start from random rotations.
    max_iter : int, default=5000
        Conjugate-gradient steps of a search.
    tol : float, default=1e-4
        The search stops when the mean relative decrease of the cost over five steps is below.
    random_state : int, RandomState instance or None, default=None
        Draws the samples of the early stages and of the warm start, and the random starts.
    n_jobs : int, default=None
        Number of searches at once, as in joblib.
    verbose : int, default=0
        Whether to show a progress bar over searches and their stages.

    Attributes
    ----------
    rotations_ : dict of int to ndarray of shape (n_features, n_features)
        ``R_l`` by site; site ``l`` is what layer ``l`` reads. Rows are the new axes, by falling
        effect on that layer (of the logits: by how much they are moved).
    network_ : Network
        The network analysed.
    sparsities_, sparsities_before_ : ndarray of shape (n_layers,)
        Mean Hoyer sparsity of every layer's Jacobian, rotated and in the given basis, over the
        training samples.
    sparsity_, sparsity_before_ : float
        Their means over the layers.
    n_iter_ : int
        Conjugate-gradient steps of the search that was kept.
    history_ : dict of ndarray
        What that search visited; see :class:`jacrot.JacobianSparsityRotation`.
    converged_ : bool
        Whether the search ended by itself, not by `max_iter`.
    n_features_in_ : int
        Number of inputs of the network.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` has names that are strings.

    References
    ----------
    P.-A. Absil, R. Mahony and R. Sepulchre, "Optimization Algorithms on Matrix Manifolds",
    Princeton (2008), section 8.3 (conjugate gradient).

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import NetworkRotation
    >>> from jacrot.datasets import load_digits_mlp
    >>> digits = load_digits_mlp()
    >>> model = NetworkRotation(digits.network, tol=1e-2, random_state=0).fit(digits.X[:200])
    >>> [(site, R.shape) for site, R in model.rotations_.items()]
    [(1, (64, 64)), (2, (64, 64))]
    >>> bool(model.score(digits.X_test) > model.sparsity_before_ + 0.1)
    True
    >>> np.allclose(model.rotated_network()(digits.X), digits.network(digits.X), atol=1e-5)
    True
    """

    # `site` says where to look, and is no metadata of the samples.
    __metadata_request__transform: ClassVar[dict[str, Any]] = {"site": UNUSED}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **NetworkEstimator._parameter_constraints,
        "rotate_input": ["boolean"],
        "rotate_output": ["boolean"],
    }

    def __init__(
        self,
        network: Any = None,
        *,
        activation: Any = "relu",
        rotate_input: bool = False,
        rotate_output: bool = False,
        criterion: str | Callable[[Array], Array] = "hoyer",
        n_init: int = 1,
        max_iter: int = 5000,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.activation = activation
        self.rotate_input = rotate_input
        self.rotate_output = rotate_output
        self.criterion = criterion
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the rotations: ``fit(X)``, or ``fit(weights, X)`` without a network yet.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The inputs of the network; sequences or images for layers that read them. In the form
            ``fit(weights, X)`` the weights stand here.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored if the network was given to the constructor. In the form ``fit(weights, X)``
            the inputs stand here.

        Returns
        -------
        NetworkRotation
            The fitted estimator.

        Raises
        ------
        TypeError
            If the weights are an object of another kind.
        ValueError
            If there is no network or there are two, if it has no hidden layer or does not read
            `X`, or if the Jacobians of a layer are all zero, or some are NaN or infinite.
        """
        weights, X = self._who_has_the_network(X, y)
        criterion = get_criterion(self.criterion)
        rng = random_source(self.random_state)
        X = self._activations(X, reset=True)
        network = self._network(weights, X)
        if network.n_layers < 2:
            raise ValueError(
                f"the network has {network.n_layers} layer and no hidden activations; write one of "
                "two layers at least, or use JacobianSparsityRotation."
            )
        last = network.n_layers
        sites = [*range(0 if self.rotate_input else 1, last + 1 if self.rotate_output else last)]
        parts = _parts(network, X, rng)
        with one_blas_thread():
            layers = [_layer_jacobians(*part) for part in parts]
            bases = {site: effective_basis(_moment(layers, site)) for site in sites}
            problem = _problem(layers, sites, bases, criterion, rng)
        identity = {site: np.eye(len(_moment(layers, site))) for site in sites}
        # What every layer reads, rotated for that layer alone; the logits stay as they are.
        one_by_one = identity | {
            site: self._alone(layer, activations, rng)
            for site, (layer, activations, _) in enumerate(parts)
            if site in sites
        }
        given, start = (
            [nearest_rotation(axes[site], bases[site]) for site in sites]
            for axes in (identity, one_by_one)
        )
        with one_blas_thread():
            solution = self._search(problem, (given, start), None, rng)

        self.network_ = network
        self.rotations_ = {}
        for site, point in zip(sites, solution.point, strict=True):
            order = layers[site].reading if site < last else layers[site - 1].writing
            self.rotations_[site] = canonical_axes(point, bases[site], order, len(order))
        self.sparsities_before_ = _sparsities(layers, {})
        self.sparsities_ = _sparsities(layers, self.rotations_)
        self.sparsity_before_ = float(self.sparsities_before_.mean())
        self.sparsity_ = float(self.sparsities_.mean())
        self._report(solution)
        return self

    def transform(self, X: ArrayLike, site: int) -> Array:
        """Compute the rotated activations at a site: ``Z = A_l R_lᵀ``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network.
        site : int
            What layer `site` reads; ``n_layers`` is what the network writes.

        Returns
        -------
        ndarray of shape (n_samples, n_activations)
            Activations in the new basis; sequences or images where the network has them there.

        Raises
        ------
        ValueError
            If no rotation was found for the site.
        """
        check_is_fitted(self)
        if site not in self.rotations_:
            raise ValueError(
                f"site={site!r} was not rotated; write one of {list(self.rotations_)}."
            )
        x = self._activations(X, reset=False)
        activations = x if site == 0 else self.network_[:site](x)
        rotation = self.rotations_[site].astype(activations.dtype, copy=False)
        return at_positions(lambda rows: rows @ rotation.T, activations)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean over the layers of the Hoyer sparsity of the rotated Jacobians.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs of the network: held-out ones are what counts.
        y : Ignored
            Not used; scikit-learn's interface.

        Returns
        -------
        float
            Between 0 and 1. Samples whose Jacobian is zero are left out, with a warning.
        """
        check_is_fitted(self)
        x = self._activations(X, reset=False)
        parts = _parts(self.network_, x, np.random.RandomState(SCORE_SEED))
        layers = [_layer_jacobians(*part) for part in parts]
        return float(_sparsities(layers, self.rotations_).mean())

    def rotated_network(self) -> Network:
        """Make the same network with all rotations folded in.

        Returns
        -------
        Network
            ``rotated_network()(X)`` is ``network_(X)``, with the logits in the new basis if they
            were rotated. If the inputs were, a first layer rotates them.
        """
        check_is_fitted(self)
        last = self.network_.n_layers
        inner = {site: Q for site, Q in self.rotations_.items() if site < last}
        network = self.network_.rotated(inner)
        return network.writing(self.rotations_[last]) if last in self.rotations_ else network

    def _alone(self, layer: Network, X: Array, rng: np.random.RandomState) -> Matrix:
        """Rotate what one layer reads, with its outputs in the given basis."""
        rotation = JacobianSparsityRotation(
            criterion=self.criterion, max_iter=self.max_iter, tol=self.tol, random_state=rng
        )
        return rotation.fit(layer, X).rotation_


def _parts(
    network: Network, X: Array, rng: np.random.RandomState
) -> list[tuple[Network, Array, Any]]:
    """List every layer as a network, what it reads, and which samples of that are taken."""
    parts = []
    for site in range(network.n_layers):
        layer = network[site : site + 1]
        parts.append((layer, X, drawn_pairs(layer, X, rng)))
        X = layer(X)
    return parts


def _layer_jacobians(layer: Network, X: Array, pairs: Any) -> _LayerJacobians:
    stack, _, norms = with_effect(network_jacobians(layer, X, pairs))
    with shared(stack) as apply:
        reading, writing = stack.scaled(1 / norms).moments(apply=apply)
    return _LayerJacobians(stack, norms, reading, writing)


def _moment(layers: list[_LayerJacobians], site: int) -> Matrix:
    """Sum what the layer before a site moves and what the layer after it reads."""
    moments = []
    if site > 0:
        moments.append(layers[site - 1].writing)
    if site < len(layers):
        moments.append(layers[site].reading)
    return np.asarray(sum(moments))


def _problem(
    layers: list[_LayerJacobians],
    sites: list[int],
    bases: dict[int, Matrix | None],
    criterion: Criterion,
    rng: np.random.RandomState,
) -> Problem:
    """Make a term of every layer, whose rotations are those of the sites at its two ends."""
    index = {site: number for number, site in enumerate(sites)}
    terms = []
    for number, layer in enumerate(layers):
        output, input_ = index.get(number + 1), index.get(number)
        _, n_outputs, n_inputs = layer.stack.shape
        size = 1
        for site, n_features in ((number + 1, n_outputs), (number, n_inputs)):
            basis = bases.get(site)
            size *= n_features if basis is None else len(basis)
        scaled = scaled_for(criterion, layer.stack, layer.norms, size)
        terms.append(Term(drawn_for_search(scaled, rng), output, input_))
    return Problem(tuple(terms), criterion, tuple(bases.values()))


def _sparsities(layers: list[_LayerJacobians], rotations: Rotations) -> Matrix:
    """Compute the mean Hoyer sparsity of every layer between its two rotations."""
    return np.array(
        [
            mean_hoyer(layer.stack, layer.norms, rotations.get(site + 1), rotations.get(site))
            for site, layer in enumerate(layers)
        ]
    )

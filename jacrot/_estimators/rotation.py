"""The estimator: stores, canonicalises and explains a rotation."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from types import NoneType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.base import NetworkEstimator, mean_hoyer, shared, some_hoyer, with_effect
from jacrot._estimators.callbacks import Task
from jacrot._estimators.inputs import are_batches, resolve_fit_inputs
from jacrot._jacobians.coordinates import (
    Coordinates,
    SiteBasis,
    read_by,
    readout_moment,
    written_by,
)
from jacrot._jacobians.networks import (
    drawn_pairs,
    network_jacobians,
    pooled_jacobians,
)
from jacrot._jacobians.stacks import Jacobians, StackJacobians
from jacrot._search.frame import Frame
from jacrot._search.objective import OutputMode
from jacrot._search.subspace import effective_basis, nearest_rotation, sensitivities
from jacrot._utils.arrays import FEATURES_AXIS, Array, Matrix, any_array, real_array
from jacrot._utils.random import drawn_seed, random_rotation, random_source
from jacrot._utils.threads import one_blas_thread
from jacrot.criteria._measures import hoyer_of_norms
from jacrot.criteria._minimised import get_criterion
from jacrot.layers._weights import is_made_of_layers
from jacrot.network import Network, orthogonal

# Which pairs of input and position are scored, where there are too many for all.
SCORE_SEED = 0


class JacobianSparsityRotation(NetworkEstimator):
    """Rotation of a network's activations that makes the Jacobian of what follows sparse.

    Finds the orthogonal ``Q``, and on request an orthogonal ``P``, that minimise ::

        F(P, Q) = mean_i 1/(mn) Σ φ(P J_i Qᵀ / rms(J_i))

    where ``J_i`` is the Jacobian of the network at sample ``i`` and ``φ`` the `criterion`. A
    rotation keeps the Frobenius norm, so that with the default criterion this maximises the
    mean Hoyer sparsity of the rotated Jacobians. The search is pymanopt's Riemannian conjugate
    gradient on the square Stiefel manifold, with ``φ`` smoothed less and less.

    The estimator is used in one of two forms:

    - ``JacobianSparsityRotation(network).fit(X)``, as every scikit-learn transformer; it clones,
      pipelines, cross-validates and grid-searches.
    - ``JacobianSparsityRotation().fit(weights, X)``, for one analysis at a prompt. A fitted one
      goes into a pipeline through :class:`sklearn.frozen.FrozenEstimator`.

    Parameters
    ----------
    network : Network, array-like, sequence, mapping or callable, default=None
        The computation from the rotated activations on: a :class:`jacrot.Network` or anything
        that makes one (one matrix ``(n_out, n_in)``, a list of matrices, a list of ``(W, b)``
        pairs, a flat list ``W, b, W, b``, a mapping of names to arrays in layer order, a
        callable written with ``autograd.numpy``), or a 3-D array or memory map
        ``(n_samples, n_outputs, n_inputs)`` of Jacobians computed elsewhere, one for each row of
        the `X` given to ``fit`` (4-D: several for each). A list of networks, if `X` is a list of
        as many arrays: blocks that share their rotations, as those of a residual stream do.
        ``None`` if it is given to ``fit``.
    activation : str, callable or list of them, default="relu"
        Applied after every layer of raw weights, the last one included; a list gives one per
        layer, as ``["relu", "identity"]`` where the last one computes logits. Names are in
        ``jacrot.activations.ACTIVATIONS``. A ``Network`` and a callable know their own.
    rotate_output : bool or "tied", default=False
        Whether the outputs are rotated too: ``False`` keeps them (``P = I``), ``True`` finds a
        ``P`` of its own, ``"tied"`` uses ``P = Q``, for residual streams, whose input and output
        share a basis.
    n_components : int or float, default=None
        Number of axes. An integer, or a fraction in (0, 1] of the sensitivity, keeps the leading
        directions of ``E[JᵀJ]`` (of ``E[JᵀJ] + E[JJᵀ]`` if tied) and rotates inside them; ``None``
        keeps all.
        Directions without any effect are never rotated: they complete the axes at the end.
    criterion : {"hoyer", "l1", "log", "logcosh", "quartimax"} or callable, default="hoyer"
        What is minimised. ``"hoyer"`` is the ℓ₁ norm with every sample scaled to the same
        Frobenius norm, ``"l1"`` the same without that, so that samples with large Jacobians
        count more. ``"log"`` makes connections few: ``Σ_ab log(1 + M_ab/ε²)`` of the table ``M_ab``
        of mean squares over the samples, ``ε = 0.001 √ΣM`` at last. ``"quartimax"`` is that of
        factor analysis, ``"logcosh"`` that of FastICA; a callable is an even elementwise function
        written with ``autograd.numpy``.
    coordinates : {"neurons", "functional"}, default="neurons"
        Of what ``Q`` is a rotation. ``"neurons"``: of the activations. ``"functional"``: of
        ``C^-½ (x − mean)``, ``C`` the covariance of `X`, and ``P`` of ``G^½ y``, ``G`` the second
        moment of what reads the outputs; the Jacobians are then ``G^½ J_i C^½``. In these the new
        activations are uncorrelated, and the errors of connections left out add up; but **the
        axes are not orthogonal in the space of neurons**. With ``rotate_output=False`` every
        output is scaled by ``√G_aa``; with ``"tied"`` the outputs are in the coordinates of the
        inputs, weighed by what reads them, for which only ``criterion="log"`` is defined.
    readout : Network or what makes one, default=None
        For functional coordinates: what reads the outputs, from them on to the logits, as
        ``network[2:]`` does where ``network[1:2]`` is fitted. ``None`` is ``G = I``.
    init : {"auto", "identity", "svd", "random"} or array-like, default="auto"
        Start of the first search. ``"auto"`` chooses, and never ends worse than the given basis;
        ``"svd"`` is the eigenvectors of ``E[JᵀJ]`` (and ``E[JJᵀ]``), every sample scaled to the
        same norm; an array of shape ``(n_features, n_features)`` with orthonormal rows is a
        rotation to improve. Every start but ``"auto"`` is kept in sight: the smoothing then
        starts at 0.1 in place of 1.
    n_init : int, default=1
        Number of searches, the best of which is kept. Further ones start from random rotations.
    max_iter : int, default=5000
        Conjugate-gradient steps of a search, over all its stages; also the most steps of a
        stochastic warm start.
    tol : float, default=1e-4
        The search stops when the mean relative decrease of the cost over five steps is below
        `tol` (a tenth of it where all samples collapse into one matrix, which costs little).
    on_interrupt : {"raise", "keep"}, default="raise"
        What Ctrl-C (``KeyboardInterrupt``) during the search does: ``"raise"`` ends ``fit`` and
        leaves the estimator as it was, ``"keep"`` fits the best rotation so far, with
        ``converged_`` false and a warning. Before there is one, and after the search, it raises.
    random_state : int, RandomState instance or None, default=None
        Draws the samples of the search and of the warm start, and the random starts.
    n_jobs : int, default=None
        Number of searches at once, as in joblib.
    verbose : int, default=0
        Whether to show a progress bar on stderr: stage, step, cost (with the smoothing of the
        stage), sparsity of a few samples, the share of the budget `max_iter` that is spent, and the
        time that the rest of it would take. Most searches end before.

    Attributes
    ----------
    rotation_ : ndarray of shape (n_components, n_features_in_)
        ``Q``: rows are the new axes, by falling sensitivity ``E‖J q‖²``, the entry of largest
        magnitude positive. In double precision, whatever the input's.
    output_rotation_ : ndarray of shape (n_outputs, n_outputs) or None
        ``P``, ordered by falling ``E‖Jᵀ p‖²``; ``rotation_`` itself, with as many rows, if tied;
        ``None`` if the outputs are not rotated.
    mean_, whitening_ : ndarray of shape (n_features_in_,) and (n_features_in_, n_features_in_)
        In functional coordinates the mean of `X`, and ``C^-½``; else ``None``.
    output_whitening_ : ndarray of shape (n_outputs, n_outputs) or None
        ``G^½`` in functional coordinates with a readout, ``C^-½`` if tied.
    network_ : Network, tuple of Network or None
        The network analysed, or the blocks; ``None`` for Jacobians computed elsewhere.
    sparsity_ : float
        Mean Hoyer sparsity of the rotated Jacobians, over the training samples.
    sparsity_before_ : float
        The same of the plain Jacobians, in the given basis.
    explained_sensitivity_ratio_ : ndarray of shape (n_components,)
        ``E‖J q‖² / E‖J‖²`` for each axis.
    n_iter_ : int
        Conjugate-gradient steps of the search that was kept; steps of its warm start, where it was
        ended during that.
    history_ : dict of ndarray
        A row for every point that search visited: ``"stage"``, ``"iteration"`` within the stage,
        ``"evaluations"`` (passes so far over the samples of the stages, or over mini-batches in a
        warm start), ``"cost"`` (with the smoothing and on the samples of the stage or the
        mini-batch), ``"seconds"``.
    stages_ : list of str
        The names of the stages that ``history_["stage"]`` counts.
    converged_ : bool
        Whether the search ended by itself, not by `max_iter`, Ctrl-C or a callback.
    provenance_ : dict
        Where the result comes from, in what JSON can hold: ``"parameters"``, ``"seed"`` (also of
        ``random_state=None``), SHA-256 and shape of the ``"data"`` and the ``"networks"``,
        ``"versions"``, ``"scores"``.
    n_features_in_ : int
        Number of activations.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` has names that are strings.

    Notes
    -----
    The search chooses its pieces by the problem. One dense layer with fixed outputs collapses into
    one matrix, however many samples there are; it is minimised with less and less smoothing, and
    other minima are tried, unless a hop far from the first comes back to it. Anything else begins
    with a stochastic warm start and ends with conjugate gradient. It uses a random 1024 of the
    samples, or as many as scikit-learn's ``working_memory`` holds but at least 256. Sparsities
    always use all. For a first look at a large problem, ``tol=1e-2`` or ``max_iter=30``
    give an answer in a fraction of the time.

    Of sequences ``(n, positions, features)`` and images ``(n, channels, height, width)``, a
    rotation turns the features, the same at every position. A sample then is an input and a
    position of it: its Jacobian is that of all outputs with respect to the features there, which
    consists of a matrix for every output position that it reaches (of one convolution: for every
    offset of the kernel), and its sparsity is that of all of them together. Where positions mix,
    a random 1024 of these are the samples. :func:`jacrot.positions.at_positions` rotates such
    arrays.

    Widths alone cannot tell what belongs to a layer: where all are equal, a whole network fits the
    activations of a hidden layer, and its inputs fit every layer. ``transform``, ``score`` and
    ``jacobians`` warn where the median squared Mahalanobis distance of `X` from the mean of the
    fitted activations is over 1.5 times that of the farthest of them, if there were at least ten
    inputs and as many rows as features. ``fit`` has nothing to compare with: pass one layer as
    ``network[1:2]``. ``load_digits_mlp((48, 32))`` has unequal widths, with which such mistakes are
    errors.

    Jacobians computed elsewhere belong to their samples: they cannot be cross-validated, and a
    memory map is best given to ``fit``, since scikit-learn's ``clone`` copies parameters.

    A linear map is sparse in its singular basis, whatever it computes. Look at the sparsity
    under singular vectors, and of the same network with shuffled weights, before you believe that
    a rotation has found structure; and look at ``score`` on inputs that were not fitted.

    References
    ----------
    P.-A. Absil, R. Mahony and R. Sepulchre, "Optimization Algorithms on Matrix Manifolds",
    Princeton (2008), section 8.3 (conjugate gradient).

    P. O. Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5 (2004),
    section 3.1 (the measure of sparsity).

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> problem = make_planted_problem(n_features=16, n_outputs=32, random_state=0)
    >>> rotation = JacobianSparsityRotation(random_state=0).fit(problem.network, problem.X)
    >>> print(f"{rotation.sparsity_before_:.2f} -> {rotation.sparsity_:.2f}")
    0.55 -> 0.84
    >>> Z = rotation.transform(problem.X)
    >>> np.allclose(rotation.rotated_network()(Z), problem.network(problem.X))
    True
    """

    rotation_: Matrix
    output_rotation_: Matrix | None
    network_: Network | tuple[Network, ...] | None
    _saved: ClassVar[dict[str, Any]] = {
        "rotation_": np.ndarray,
        "output_rotation_": (np.ndarray, NoneType),
        "network_": (Network, tuple, NoneType),
        "explained_sensitivity_ratio_": np.ndarray,
        "mean_": (np.ndarray, NoneType),
        "whitening_": (np.ndarray, NoneType),
        "output_whitening_": (np.ndarray, NoneType),
        "_inner": (Coordinates, NoneType),
        "_outer": (Coordinates, NoneType),
        **NetworkEstimator._saved,
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **NetworkEstimator._parameter_constraints,
        "rotate_output": ["boolean", StrOptions({"tied"})],
        "coordinates": [StrOptions({"neurons", "functional"})],
        "readout": "no_validation",
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
            None,
        ],
        "init": [StrOptions({"auto", "identity", "svd", "random"}), "array-like"],
    }

    def __init__(
        self,
        network: Any = None,
        *,
        activation: Any = "relu",
        rotate_output: bool | Literal["tied"] = False,
        n_components: int | float | None = None,
        criterion: str | Callable[[Array], Array] = "hoyer",
        coordinates: Literal["neurons", "functional"] = "neurons",
        readout: Any = None,
        init: str | ArrayLike = "auto",
        n_init: int = 1,
        max_iter: int = 5000,
        tol: float = 1e-4,
        on_interrupt: Literal["raise", "keep"] = "raise",
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.activation = activation
        self.rotate_output = rotate_output
        self.n_components = n_components
        self.criterion = criterion
        self.coordinates = coordinates
        self.readout = readout
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.on_interrupt = on_interrupt
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the rotation: ``fit(X)``, or ``fit(weights, X)`` without a network yet.

        What :func:`~jacrot.readers.capture` returns stands for both: ``fit(captured)``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The activations that the network reads; sequences or images for layers that read them;
            a list of arrays for a list of blocks. Finite real numbers; masked arrays are taken
            only where nothing is masked, and tensors without their gradients. In the form
            ``fit(weights, X)`` the weights stand here: whatever the parameter `network` accepts.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored if the network was given to the constructor. In the form ``fit(weights, X)``
            the activations stand here.

        Returns
        -------
        JacobianSparsityRotation
            The fitted estimator.

        Raises
        ------
        TypeError
            If the weights are an object of another kind.
        ValueError
            If there is no network or there are two, if they are in the wrong order, if the network
            does not read `X`, or if no Jacobian can be sparse: all are zero, or some are NaN or
            infinite.
        """
        return self._fit_or_leave(X, y)

    def _set_attributes(self, X: Any, y: Any) -> None:
        weights, X = resolve_fit_inputs(type(self).__name__, self.network, X, y)
        criterion = get_criterion(self.criterion)
        seed = drawn_seed(self.random_state)
        rng = random_source(seed)
        task = Task.of_fit(self, X, self.n_init)
        network, batches, given = self._network_and_jacobians(weights, X, rng)
        if given.shape[1] == 0:
            raise ValueError("the Jacobians have no outputs; pass a network that has some.")
        output = _output_mode(self.rotate_output, given)
        given, l1, l2 = with_effect(given)
        before = hoyer_of_norms(l1, l2, given.n_entries_each)
        readout = self._find_coordinates(network, batches, given.scaled(1 / l2), output)
        jacobians = given
        if self._inner is not None:
            jacobians, _, l2 = with_effect(self._in_coordinates(given))
        if isinstance(self.n_components, Integral) and self.n_components > jacobians.shape[2]:
            raise ValueError(
                f"n_components={self.n_components} must be at most n_features={jacobians.shape[2]}."
            )

        with one_blas_thread():
            with shared(jacobians) as apply:
                frame = Frame(jacobians, l2, output, self.n_components, apply)
            problem = frame.problem(criterion, rng, readout)
            start = self._start(frame, rng)

            def attributes(point: list[Matrix]) -> dict[str, Any]:
                P, Q = frame.axes(point)
                return {"network_": network, "rotation_": Q, "output_rotation_": P}

            candidates = frame.given, frame.singular
            solution = self._search(
                problem,
                candidates,
                start,
                rng,
                task,
                attributes,
                lambda point: some_hoyer(jacobians, *frame.axes(point)),
            )
            self.__dict__.update(attributes(solution.point))

        P, Q = self.output_rotation_, self.rotation_
        effects = sensitivities(Q, frame.reading)
        self.explained_sensitivity_ratio_ = effects / np.trace(frame.reading)
        self.sparsity_before_ = float(before.mean())
        self.sparsity_ = mean_hoyer(jacobians, l2, P, Q)
        analysed = any_array(weights, "jacobians") if network is None else network
        self._report(solution, seed, batches, analysed)
        task.end(attributes=lambda: attributes(solution.point))

    def transform(self, X: ArrayLike) -> Array:
        """Rotate activations: ``Z = X Qᵀ``, or ``(X − mean) C^-½ Qᵀ`` in functional coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Activations.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            The activations in the new basis, in the precision of `X`.

        See Also
        --------
        jacrot.positions.at_positions : Rotates sequences and images.
        """
        check_is_fitted(self)
        X = self._activations(X, reset=False)
        if X.ndim > 2:
            raise ValueError(
                f"X has shape {X.shape}, but transform takes rows; write "
                "jacrot.positions.at_positions(rotation.transform, X)."
            )
        if self._inner is None:
            return X @ self.rotation_.T.astype(X.dtype, copy=False)
        Z = (X - self._inner.mean) @ (self.rotation_ @ self._inner.forward).T
        return Z.astype(X.dtype, copy=False)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Rotate back: ``X = Z Q``, or ``mean + Z Q C^½`` in functional coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Activations in the new basis.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Activations; with fewer components than features, their projection.

        Raises
        ------
        ValueError
            If `X` has another number of components.
        """
        check_is_fitted(self)
        Z = real_array(X, "X", ndim=2)
        if Z.shape[1] != len(self.rotation_):
            raise ValueError(
                f"X has {Z.shape[1]} components but the rotation has {len(self.rotation_)}; write "
                "what transform returned."
            )
        if self._inner is None:
            return Z @ self.rotation_.astype(Z.dtype, copy=False)
        X = self._inner.mean + Z @ (self.rotation_ @ self._inner.backward)
        return X.astype(Z.dtype, copy=False)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean Hoyer sparsity of the rotated Jacobians: on held-out inputs, what counts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Activations.
        y : Ignored
            Not used; scikit-learn's interface.

        Returns
        -------
        float
            Between 0 (all entries of one size) and 1. Samples whose Jacobian is zero are left
            out, with a warning.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere, or all are zero.
        """
        check_is_fitted(self)
        batches = self._batches(X, reset=False)
        stack = _network_stack(self._networks, batches, np.random.RandomState(SCORE_SEED))
        jacobians, _, norms = with_effect(self._in_coordinates(stack))
        return mean_hoyer(jacobians, norms, self.output_rotation_, self.rotation_)

    def jacobians(self, X: ArrayLike) -> Array:
        """Compute the rotated Jacobians ``P J_i Qᵀ``, those of :meth:`rotated_network`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Activations, in the given basis.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs, n_components)
            Derivatives of the (rotated) outputs with respect to the rotated activations. Of
            sequences and images, every position is a sample; ``(n_samples, n_matrices, n_outputs,
            n_components)`` where it acts on several positions.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere.
        """
        check_is_fitted(self)
        read = SiteBasis.of(self.rotation_, self._inner, self.n_features_in_)
        return self._jacobians(X, self._output_encoder, read.decoder.T)

    def rotated_network(self) -> Network | tuple[Network, ...]:
        """Make the same function in the new basis, ``Q`` and ``P`` folded in.

        ``rotated_network()(transform(X))`` is ``network_(X) @ P.T``; with fewer components than
        features, it is that of the projected activations. In functional coordinates the outputs
        are ``network_(X) @ output_whitening_ @ P.T``, if tied those of the transformed outputs.

        Returns
        -------
        Network or tuple of Network
            The network that reads ``Z = X Qᵀ``; one for each block, where there were several.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere.
        """
        check_is_fitted(self)
        if self._inner is not None:
            return self._functional_network(self._networks[0], self._inner)
        rotated = [network.rotate_inputs(self.rotation_) for network in self._networks]
        if self.output_rotation_ is not None:
            rotated = [network.rotate_outputs(self.output_rotation_) for network in rotated]
        return tuple(rotated) if isinstance(self.network_, tuple) else rotated[0]

    @property
    def _n_features_out(self) -> int:
        return len(self.rotation_)

    def _network_and_jacobians(
        self, weights: Any, X: Any, rng: np.random.RandomState
    ) -> tuple[Network | tuple[Network, ...] | None, list[Array], Jacobians]:
        batches = self._batches(X, reset=True)
        if getattr(weights, "ndim", 0) in (3, 4):
            return None, batches, _precomputed(any_array(weights, "jacobians"), batches[0])
        if not are_batches(X):
            network = self._network(weights, batches[0])
            return network, batches, _network_stack((network,), batches, rng)
        if not isinstance(weights, (list, tuple)) or len(weights) != len(batches):
            raise ValueError(
                f"X is a list of {len(batches)} arrays, one for each block that shares the basis; "
                "pass a list of as many networks: fit([block, block], [X, X])."
            )
        networks = tuple(map(self._network, weights, batches))
        return networks, batches, _network_stack(networks, batches, rng)

    def _find_coordinates(
        self,
        network: Network | tuple[Network, ...] | None,
        batches: list[Array],
        jacobians: Jacobians,
        output: OutputMode,
    ) -> Matrix | None:
        """Find the coordinates of both sides, and the weights of outputs that turn with them."""
        self._inner = self._outer = self.mean_ = self.whitening_ = self.output_whitening_ = None
        if self.coordinates == "neurons":
            if self.readout is not None:
                raise ValueError(
                    "readout weighs the outputs in functional coordinates; write "
                    "coordinates='functional', or leave it out."
                )
            return None
        if len(batches) > 1:
            raise ValueError(
                "coordinates='functional' takes one network and its activations; pass one block, "
                "or coordinates='neurons'."
            )
        reading, writing = jacobians.moments()
        effects = reading + writing if output == "tied" else reading
        inside = effective_basis(effects)
        self._inner = Coordinates.whitening(batches[0], inside, self.n_components)
        self.mean_, self.whitening_ = self._inner.mean, self._inner.forward
        readout = self._readout_moment(network, batches[0])
        if output == "tied":
            if self.criterion != "log":
                raise ValueError(
                    f"criterion={self.criterion!r} is not defined for rotate_output='tied' in "
                    "functional coordinates, where the weights of the outputs turn with the axes; "
                    "pass criterion='log'."
                )
            metric = self._inner.metric
            self._outer = self._inner
            self.output_whitening_ = self.whitening_
            return metric @ (np.eye(len(metric)) if readout is None else readout) @ metric
        if readout is not None:
            if output == "fixed":
                readout = np.diag(np.diag(readout))
            self._outer = Coordinates.weighing(readout)
            self.output_whitening_ = self._outer.forward
        return None

    def _readout_moment(self, network: Any, X: Array) -> Matrix | None:
        if self.readout is None:
            return None
        if not isinstance(network, Network):
            raise ValueError(
                "readout needs the outputs of a network, but only Jacobians were given; leave it "
                "out, or fit a network."
            )
        outputs = network(X)
        readout = Network(
            self.readout, "relu" if is_made_of_layers(self.readout) else self.activation
        )
        n_outputs = outputs.shape[FEATURES_AXIS[outputs.ndim]]
        if readout.n_inputs not in (None, n_outputs):
            raise ValueError(
                f"readout reads {readout.n_inputs} activations but the network writes {n_outputs}; "
                "pass what follows the network, such as network[2:] after network[1:2]."
            )
        return readout_moment(readout, outputs)

    def _in_coordinates(self, stack: Jacobians) -> Jacobians:
        """Give the Jacobians that are rotated; null directions count for nothing."""
        if self._inner is None:
            return stack
        left = None
        if self._outer is not None:
            left = self._outer.forward if self._outer is self._inner else self._outer.metric
        return stack.transformed(left, self._inner.metric)

    def _functional_network(self, network: Network, inner: Coordinates) -> Network:
        first, *others = network.layers
        read = SiteBasis.of(self.rotation_, inner, self.n_features_in_)
        layers = [read_by(first, read.decoder, inner.mean), *others]
        if self._output_encoder is not None:
            encoder = self._output_encoder
            mean = np.zeros(encoder.shape[1]) if self._outer is None else self._outer.mean
            layers[-1] = written_by(layers[-1], encoder, mean)
        last = () if self._output_encoder is None else (network.n_layers,)
        return Network._with_rotated_sites(layers, (0, *last))

    @property
    def _output_encoder(self) -> Matrix | None:
        """What the new outputs read of the given ones, ``None`` for the same."""
        P = self.output_rotation_
        if self._outer is None:
            return P
        return self._outer.forward if P is None else P @ self._outer.forward

    def _batches(self, X: Any, reset: bool) -> list[Array]:
        """Read the activations, in a list with one array unless there are several blocks."""
        if not are_batches(X):
            return [self._activations(X, reset)]
        return [self._activations(x, reset and index == 0) for index, x in enumerate(X)]

    def _jacobians(self, X: Any, P: Matrix | None, Q: Matrix | None) -> Array:
        batches = self._batches(X, reset=False)
        stack = _network_stack(self._networks, batches, None)
        rotated = np.concatenate(list(stack.rotated(P, Q)))
        if stack.n_matrices > 1:
            rotated = rotated.reshape(-1, stack.n_matrices, *rotated.shape[1:])
        return rotated.astype(batches[0].dtype, copy=False)

    @property
    def _networks(self) -> tuple[Network, ...]:
        if self.network_ is None:
            raise ValueError(
                "this estimator was fitted to Jacobians computed elsewhere and has no network to "
                "compute others; rotate yours with np.matmul(J, rotation_.T), and with "
                "output_rotation_ from the left, and score them with jacrot.criteria.hoyer."
            )
        return self.network_ if isinstance(self.network_, tuple) else (self.network_,)

    def _start(self, frame: Frame, rng: np.random.RandomState) -> list[Matrix] | None:
        """Make the start that `init` asks for, ``None`` to leave the choice to the search."""
        if isinstance(self.init, str):
            if self.init == "auto":
                return None
            if self.init == "random":
                return [random_rotation(len(matrix), rng) for matrix in frame.given]
            return frame.given if self.init == "identity" else frame.singular
        rotation = orthogonal(self.init, "init", self.n_features_in_)
        return [*frame.given[:-1], nearest_rotation(rotation, frame.input_basis)]


def _network_stack(
    networks: tuple[Network, ...], batches: list[Array], rng: np.random.RandomState | None
) -> Jacobians:
    """Make the Jacobians of one network or several, at pairs drawn by `rng`, or at all."""
    pairs = [
        None if rng is None else drawn_pairs(network, X, rng)
        for network, X in zip(networks, batches, strict=True)
    ]
    if len(networks) == 1:
        return network_jacobians(networks[0], batches[0], pairs[0])
    return pooled_jacobians(networks, batches, pairs)


def _precomputed(jacobians: Any, X: Array) -> Jacobians:
    shape = jacobians.shape
    if X.ndim != 2 or shape[0] != len(X) or shape[-1] != X.shape[1]:
        raise ValueError(
            f"a 3-D array holds one Jacobian (n_outputs, n_inputs) for each sample, a 4-D array "
            f"several, but it has shape {shape} and X has shape {X.shape}; write Jacobians "
            f"({len(X)}, n_outputs, {X.shape[-1]}), or a stack of weights as a list."
        )
    if jacobians.dtype.kind not in "fiu":
        raise TypeError(f"Jacobians have dtype {jacobians.dtype}; pass real numbers.")
    return StackJacobians(jacobians)


def _output_mode(rotate_output: bool | str, jacobians: Jacobians) -> OutputMode:
    if rotate_output == "tied":
        _, n_outputs, n_inputs = jacobians.shape
        if n_outputs != n_inputs:
            raise ValueError(
                f"rotate_output='tied' shares one basis between {n_inputs} inputs and {n_outputs} "
                "outputs, which must be as many; pass rotate_output=True."
            )
        return "tied"
    return "free" if rotate_output else "fixed"

"""Which axes of a circuit are drawn, and in which order, so that its connections cross little."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import Matrix

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
# Sweeps over all sites, each in both directions.
N_SWEEPS = 12


class CircuitLayout(NamedTuple):
    """The connections of a circuit and the places of its axes.

    Lists with an entry for each layer are in the order of the layers, and their matrices and masks
    have shape ``(n_outputs, n_inputs)``. Lists with an entry for each site begin with the inputs of
    the network and end with its logits.

    Parameters
    ----------
    kept : list of ndarray
        Which connections of every layer are part of the circuit.
    strengths : list of ndarray
        Strengths of the connections of every layer that are drawn, 0 for all others.
    strongest : float
        Largest strength in the circuit.
    totals : list of ndarray
        Sum of the strengths of the connections of every axis, by site.
    on_path : list of ndarray
        Which axes of every site are on a path from an input to a logit.
    orders : list of ndarray
        The axes of every site that are drawn, from top to bottom.
    """

    kept: Sequence[Mask]
    strengths: list[Matrix]
    strongest: float
    totals: list[Matrix]
    on_path: list[Mask]
    orders: list[Indices]

    @property
    def n_axes(self) -> list[int]:
        """Number of axes with connections, by site."""
        return [int((total > 0).sum()) for total in self.totals]

    @property
    def n_off_path(self) -> int:
        """Number of connections that are on no path from an input to a logit."""
        return sum(
            int((mask & ~np.outer(written, read)).sum())
            for mask, (read, written) in zip(self.kept, pairwise(self.on_path), strict=True)
        )

    @property
    def heights(self) -> list[dict[int, float]]:
        """Height of every axis that is drawn, between 0 and 1, by site."""
        return [
            dict(zip(order.tolist(), 1 - (np.arange(len(order)) + 0.5) / len(order), strict=True))
            for order in self.orders
        ]


def lay_out_circuit(
    kept: Sequence[Mask], strengths: Sequence[Matrix], max_axes: int
) -> CircuitLayout:
    """Choose the axes of a circuit that are drawn, and order them.

    Parameters
    ----------
    kept : sequence of ndarray of shape (n_outputs, n_inputs)
        Which connections of every layer are part of the circuit.
    strengths : sequence of ndarray of shape (n_outputs, n_inputs)
        Strengths of all connections.
    max_axes : int
        Largest number of axes of a site that are drawn.

    Returns
    -------
    CircuitLayout
        The layout.
    """
    tables = [np.where(mask, table, 0) for mask, table in zip(kept, strengths, strict=True)]
    strongest = float(max(table.max() for table in tables))
    totals = sum_strengths(tables)
    drawn = [_strongest_axes(total, max_axes) for total in totals]
    for table, (read, written) in zip(tables, pairwise(drawn), strict=True):
        table[~np.outer(written, read)] = 0
    return CircuitLayout(
        kept, tables, strongest, totals, find_paths(kept), order_axes(tables, drawn)
    )


def find_paths(kept: Sequence[Mask]) -> list[Mask]:
    """Find the axes of every site that are on a path from an input to a logit."""
    reached = [kept[0].any(axis=0)]
    for mask in kept:
        reached.append(mask @ reached[-1])
    passing = [kept[-1].any(axis=1)]
    for mask in reversed(kept):
        passing.insert(0, passing[0] @ mask)
    return [np.asarray(one & other) for one, other in zip(reached, passing, strict=True)]


def sum_strengths(tables: Sequence[Matrix]) -> list[Matrix]:
    """Sum the strengths of the connections of every axis at every site."""
    totals = [table.sum(axis=0) for table in tables] + [np.zeros(len(tables[-1]))]
    for site, table in enumerate(tables, start=1):
        totals[site] = totals[site] + table.sum(axis=1)
    return totals


def order_axes(tables: Sequence[Matrix], drawn: Sequence[Mask]) -> list[Indices]:
    """Order the axes that are drawn at every site so that strong connections cross little.

    Sweeps sort the axes of each site by the mean place of their neighbours, as in Sugiyama's method
    for layered graphs. The best orders of all sweeps are returned.
    """
    last = len(tables)
    orders = [np.flatnonzero(mask) for mask in drawn]
    best, fewest = list(orders), np.inf
    for _ in range(N_SWEEPS):
        for site in range(1, last + 1):
            orders[site] = _sort_by_neighbours(orders[site], orders[site - 1], tables[site - 1])
        for site in range(last - 1, -1, -1):
            orders[site] = _sort_by_neighbours(orders[site], orders[site + 1], tables[site].T)
        crossings = sum(
            sum_crossings(table[np.ix_(written, read)])
            for table, (read, written) in zip(tables, pairwise(orders), strict=True)
        )
        if crossings < fewest:
            best, fewest = list(orders), crossings
    return best


def sum_crossings(table: Matrix) -> float:
    """Sum the products of the strengths of all pairs of connections that cross."""
    after_and_before = table[::-1].cumsum(axis=0)[::-1].cumsum(axis=1)
    return float((table[:-1, 1:] * after_and_before[1:, :-1]).sum())


def _strongest_axes(total: Matrix, max_axes: int) -> Mask:
    """Choose the axes with the strongest connections, without those that have none."""
    mask = np.zeros(len(total), bool)
    mask[np.argsort(-total, kind="stable")[:max_axes]] = True
    return mask & (total > 0)


def _sort_by_neighbours(order: Indices, neighbours: Indices, table: Matrix) -> Indices:
    """Sort axes by the weighted mean place of their neighbours; those without any stay."""
    weights = table[np.ix_(order, neighbours)]
    total = weights.sum(axis=1)
    place = (np.arange(len(order)) + 0.5) / len(order)
    means = weights @ ((np.arange(len(neighbours)) + 0.5) / len(neighbours))
    place[total > 0] = means[total > 0] / total[total > 0]
    return order[np.argsort(place, kind="stable")]

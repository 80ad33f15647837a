"""Patches of places: a k-d tree over the map, whose leaves are padded to one size with places that behave alike.

Bentley 1975, "Multidimensional binary search trees used for associative searching"; patches for traffic as in Fang et
al. 2025, "Efficient Large-Scale Traffic Forecasting with Transformers: A Spatial Data Management Perspective", KDD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore import UsageError

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Patches:
    """Nodes in slots, `size` to a leaf, leaves of one subtree beside each other.

    Parameters
    ----------
    gather
        (leaf * size,) the node in each slot: those of the leaf first, then those it is padded with.
    undo
        (node,) the slot where a node is in its own leaf, so that ``values[gather][undo]`` is ``values``.
    leaf
        (node,) the leaf of each node.
    size
        Slots of a leaf.
    """

    gather: Int64
    undo: Int64
    leaf: Int64
    size: int

    @property
    def n_leaves(self) -> int:
        """Leaves of the tree."""
        return len(self.gather) // self.size

    @classmethod
    def of(cls, positions: Float64, profiles: Float64, depth: int, size: int | None = None) -> Patches:
        """The patches of some nodes.

        Parameters
        ----------
        positions
            (node, 2) latitude and longitude.
        profiles
            (node, slot) what nodes are alike by, such as mean daily profiles; NaN where there is none.
        depth
            Of the tree, which has ``2 ** depth`` leaves.
        size
            Slots of a leaf. Default: as many as the largest leaf has nodes.

        Raises
        ------
        UsageError
            If there are more leaves than nodes, or a leaf has more nodes than slots, or fewer are left to pad it with.

        Notes
        -----
        Leaves are padded with the nodes outside of them whose profiles have the largest mean cosine with those of their
        own nodes, ties by number. Cost: O(node log node) for the tree, a (leaf, node) product for the padding.
        """
        leaves = kd_leaves(positions, depth)
        largest, smallest = max(map(len, leaves)), min(map(len, leaves))
        size = size or largest
        if not smallest or not largest <= size <= len(positions):
            raise UsageError(
                f"{len(leaves):,} leaves of {size} slots for {len(positions):,} nodes, {smallest} to {largest} a leaf",
                expected=f"at least a node in each leaf, and from {largest} to {len(positions):,} slots",
                fix="a smaller --model.depth, or another --model.leaf_size",
            )
        directions = np.nan_to_num(profiles)
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
        slots = np.empty((len(leaves), size), np.int64)
        undo, leaf = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        for number, mine in enumerate(leaves):
            likeness = directions @ directions[mine].mean(axis=0)
            likeness[mine] = -np.inf
            others = np.argsort(-likeness, kind="stable")[: size - len(mine)]
            slots[number] = np.concatenate([mine, others])
            undo[mine], leaf[mine] = number * size + np.arange(len(mine)), number
        return cls(slots.ravel(), undo, leaf, size)

    def plot(self, positions: Float64, merged: int = 1, axes: Any = None) -> Any:
        """Draw nodes on the map, each in the colour of its patch, within the outline of the patch.

        Parameters
        ----------
        positions
            (node, 2) latitude and longitude.
        merged
            Leaves of a patch.
        axes
            Matplotlib's, to draw on. Default: a new figure.

        Returns
        -------
        The axes.
        """
        import matplotlib.pyplot as plt  # only who draws needs it
        from matplotlib.patches import Rectangle

        if axes is None:
            axes = plt.subplots(figsize=(7, 7), layout="constrained")[1]
        patch, colours = self.leaf // merged, plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
        for number in range(self.n_leaves // merged):
            where, colour = positions[patch == number], colours[number % len(colours)]
            axes.scatter(where[:, 1], where[:, 0], s=14, color=colour)
            (south, west), (north, east) = where.min(axis=0), where.max(axis=0)
            box = Rectangle((west, south), east - west, north - south, fill=False, edgecolor=colour, linewidth=0.8)
            axes.add_patch(box)
        axes.set(xlabel="longitude", ylabel="latitude", title=f"{len(positions):,} nodes in {number + 1:,} patches")
        axes.set_aspect(1 / np.cos(np.deg2rad(positions[:, 0].mean())))
        return axes


def kd_leaves(positions: Float64, depth: int) -> list[Int64]:
    """The leaves of a k-d tree that is cut at the median, by latitude first, then by longitude, and so on.

    Parameters
    ----------
    positions
        (node, 2) latitude and longitude.
    depth
        How often every part is cut.

    Returns
    -------
    ``2 ** depth`` leaves, each the numbers of its nodes; leaves of one subtree lie beside each other. Sizes differ by
    one at most.
    """
    leaves = [np.arange(len(positions))]
    for level in range(depth):
        cut = []
        for nodes in leaves:
            ordered = nodes[np.argsort(positions[nodes, level % 2], kind="stable")]
            cut += [ordered[: len(nodes) // 2], ordered[len(nodes) // 2 :]]
        leaves = cut
    return leaves

"""Series that stay together: those with the same value of a static attribute, such as the scans of a patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from lightning_app.data.windows.splits import NAMES
from zstore import Store, UsageError

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Which series belong together.

    Parameters
    ----------
    attribute
        What they have in common.
    names
        (group,) its values.
    of_series
        (chosen,) int64 positions among these.
    """

    attribute: str
    names: tuple[str, ...]
    of_series: Int64

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, store: Store, attribute: str, chosen: Int64) -> Groups:
        """Those of some series of a store, (chosen,) positions.

        Raises
        ------
        UsageError
            If there is no such attribute, or a series has no value of it.
        """
        static = store.static(attribute)
        of_chosen = static.values[chosen]
        lacking = of_chosen < 0 if static.categories is not None else np.isnan(of_chosen)
        if lacking.any():
            raise UsageError(
                f"series {store.ids[chosen[int(np.argmax(lacking))]]} without a {attribute}",
                expected="one for each series, which --data.split.group keeps together",
                where=store.path,
                fix="correct the source, or drop --data.split.group",
            )
        values, of_series = np.unique(of_chosen, return_inverse=True)
        words = static.categories
        names = tuple(_written(float(value)) if words is None else words[int(value)] for value in values)
        return cls(attribute, names, of_series.astype(np.int64))

    @property
    def hashes(self) -> Int64:
        """(group,) a number for each name, whatever the store."""
        hashed = [xxhash.xxh3_64_intdigest(name.encode()) for name in self.names]
        return np.array(hashed, np.uint64).view(np.int64)

    def require_whole(self, assigned: Int64, where: str) -> int:
        """Prove that no group is in two of train, val and test.

        Parameters
        ----------
        assigned
            (series,) 0, 1 or 2 for train, val and test, -1 for none.
        where
            The store.

        Returns
        -------
        How many groups are in one of them.

        Raises
        ------
        UsageError
            If a group is in two.
        """
        inside = np.zeros((len(self), len(NAMES)), np.bool_)
        used = assigned >= 0
        inside[self.of_series[used], assigned[used]] = True
        parted = np.flatnonzero(inside.sum(axis=1) > 1)
        if len(parted):
            both = [name for name, here in zip(NAMES, inside[parted[0]], strict=True) if here]
            raise UsageError(
                f"{self.attribute} {self.names[parted[0]]} in both {both[0]} and {both[1]}",
                expected="all series of one in one split",
                where=where,
                fix="correct --data.split, or drop --data.split.group",
            )
        return int(inside.any(axis=1).sum())


def _written(value: float) -> str:
    """All digits; whole numbers without a point."""
    return f"{int(value)}" if value.is_integer() else f"{value}"

"""Some series of a store: by their ids, or by a static attribute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.members import ids_or_patterns, with_values
from lightning_app.data.windows.splits import read_ids
from zstore import Store, UsageError


@dataclass(frozen=True)
class SeriesSubset:
    """Only some series of the store.

    Parameters
    ----------
    ids
        Only these series: a list, or a text file with an id on each line, such as a list of basins. What is no id may
        be a pattern of them, in which ``*`` is any text and ``?`` any one letter.
    attribute, values
        Only series with one of these values of a static attribute, such as a district.
    """

    ids: list[str] | str | None = None
    attribute: str | None = None
    values: list[str | float] | None = None

    def __post_init__(self) -> None:
        if (self.attribute is None) != (self.values is None) or (self.ids is None) == (self.attribute is None):
            raise UsageError(
                "series by ids and by an attribute, by half of an attribute and its values, or by nothing",
                expected="--data.series.ids, or both --data.series.attribute and --data.series.values",
                fix="correct --data.series, or drop it for all series",
            )

    def members(self, store: Store) -> NDArray[np.bool_]:
        """(series,) which series of the store they are.

        Raises
        ------
        UsageError
            If there is no such id, attribute or value, or no series is named.
        """
        if self.ids is not None:
            positions = ids_or_patterns(store, read_ids(self.ids, "--data.series.ids"), "--data.series.ids")
        else:
            assert self.attribute is not None
            positions = with_values(store, self.attribute, self.values or [], "--data.series.values")
        if not len(positions):
            raise UsageError("no series", expected="one at least", where=store.path, fix="correct --data.series")
        members = np.zeros(store.n_series, np.bool_)
        members[positions] = True
        return members

"""Checkpoints written before they said what their columns mean: taken where nothing can be mistaken, else refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.scaling.scaler import Scaler
from zstore import Store, UsageError


def require_plain(store: Store, columns: Sequence[str], told_by_code: Sequence[str], scaler: Scaler) -> None:
    """Raise UsageError if a checkpoint needs more than the names of its channels to be understood.

    Parameters
    ----------
    store, columns
        What it is used on, and the channels of the configuration.
    told_by_code
        Other things of the configuration that would need it, such as static attributes.
    scaler
        Of the checkpoint.
    """
    needs = list(told_by_code)
    needs += [f"words of channel {name!r}" for name in columns if store.channel(name).kind == "category"]
    needs += ["a scaler by series"] if scaler.scaling.per_series else []
    if needs:
        raise UsageError(
            f"checkpoint that does not say what was meant by {', '.join(needs)}",
            expected="one of this version, which names words, attributes and ids",
            where=store.path,
            fix="fit again",
        )


def require_same_store(
    store: Store, split: str, kinds: Mapping[str, str], fitted: str, members: NDArray[np.bool_] | None
) -> None:
    """Raise UsageError unless a scaler was fitted on this store, or an earlier version of it.

    Parameters
    ----------
    store
        What the checkpoint is used on.
    split
        Digest of the split it was trained with.
    kinds
        Of the scaler of each channel, as the configuration has it.
    fitted
        What the scaler was fitted on, as it says.
    members
        (series,) which series it was fitted on; None for all.
    """
    rest: list[Any] = [split, list(kinds.items()), "channel"]
    rest += [] if members is None else [np.flatnonzero(members).tolist()]
    for version in range(store.version, 0, -1):
        for rules in ([], [2]):
            key = [*rules, store.schema.uuid, version, *rest]
            if hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32] == fitted:
                return
    raise UsageError(
        "checkpoint that does not say what its columns mean, of another store or with another --data.scaler",
        expected="the store and the configuration that it was trained with",
        where=store.path,
        fix="fit again",
    )

"""How well an order mixes: the variance of batch means against that of a true permutation."""

from __future__ import annotations

import numpy as np

from lightning_app.data.batches.loader import WindowLoader

_BATCHES = 400
_ROWS = 100_000  # of all windows, whose mean and variance are those of a permutation


def inflation(loader: WindowLoader, seed: int = 0) -> float:
    """Variance of the mean first row of a batch, over what it is when batches are drawn at random.

    Parameters
    ----------
    loader
        Of training windows; of what batches have on all processes together. It starts its epoch anew.
    seed
        Which batches are looked at, some 400 of the first epoch.

    Returns
    -------
    About 1 for a true permutation; about the batch size where a batch is windows that lie beside each other. In survey
    sampling it is called the design effect (Kish 1965, "Survey Sampling"). Rows lie in the order of their series,
    so this tells how much alike the series of a batch are. With lanes it is the mean of what it is in each: that a
    batch has its share of each lane, which makes it more even, does not count. Cost: no row is read.
    """
    batch, locate = loader.batch_size, loader.index.locate
    numbers = np.random.default_rng(seed).permutation(len(loader))[:_BATCHES]
    loader.start_epoch(0)
    positions = np.sort(numbers)[:, None] * batch + np.arange(batch)
    samples = loader.samples_at(positions.ravel()).reshape(-1, batch)
    rows = locate(samples.ravel())[0].reshape(samples.shape).astype(np.float64)
    lanes, found = loader.lanes, []
    for number, (first, last) in enumerate(lanes):
        mine = positions % len(lanes) == number
        n_each = mine.sum(axis=1)
        mine, own, n_each = mine[n_each > 0], rows[n_each > 0], n_each[n_each > 0]
        if not len(n_each):
            continue
        n_windows = last - first
        every = locate(np.linspace(first, last - 1, min(n_windows, _ROWS // len(lanes))).astype(np.int64))[0]
        # The mean of all is known, so no degree of freedom is lost; batches are drawn without replacement.
        spread = np.var(every.astype(np.float64)) / n_each * (n_windows - n_each) / max(n_windows - 1, 1)
        deviations = (np.where(mine, own, 0).sum(axis=1) / n_each - every.mean()) ** 2
        found.append(float(np.mean(deviations[spread > 0] / spread[spread > 0])) if spread.any() else 1.0)
    return float(np.mean(found))

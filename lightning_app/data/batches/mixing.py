"""How well an order mixes: the variance of batch means against that of a true permutation."""

from __future__ import annotations

import numpy as np

from lightning_app.data.batches.loader import WindowLoader

_BATCHES = 400


def inflation(loader: WindowLoader, seed: int = 0) -> float:
    """Variance of the mean first row of a batch, over what it is when batches are drawn at random.

    Parameters
    ----------
    loader
        Of training windows, of one process.
    seed
        Which batches are looked at, some 400 of the first epoch.

    Returns
    -------
    About 1 for a true permutation; about the batch size where a batch is windows that lie beside each other. In survey
    sampling it is called the design effect (Kish 1965, "Survey Sampling"). Rows lie in the order of their series,
    so this tells how much alike the series of a batch are. Cost: no row is read.
    """
    n_windows, batch = len(loader.index), loader.batch_size
    numbers = np.random.default_rng(seed).permutation(len(loader))[:_BATCHES]
    loader.start_epoch(0)
    positions = np.sort(numbers)[:, None] * batch + np.arange(batch)
    samples = loader.samples_at(positions.ravel()).reshape(-1, batch)
    rows = loader.index.locate(samples.ravel())[0].reshape(samples.shape).astype(np.float64)
    every = loader.index.locate(np.linspace(0, n_windows - 1, min(n_windows, 100_000)).astype(np.int64))[0]
    # The mean of all is known, so no degree of freedom is lost; batches are drawn without replacement.
    spread = np.var(every.astype(np.float64)) / batch * (n_windows - batch) / max(n_windows - 1, 1)
    return float(np.mean((rows.mean(axis=1) - every.mean()) ** 2) / spread) if spread else 1.0

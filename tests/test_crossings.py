"""Random crossings of stores, views, splits, scalers and the rest, against plain numpy and pandas.

A failing draw is run again, alone, by ``python -m crossings NUMBER`` in this folder.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from crossings.draws import DRAWS_PER_CASE, KINDS
from crossings.run import run_draws

N_LONG, N_OF_SHARD = 2000, 100


def disagreements(numbers: Sequence[int], folder: Path, counts: Counter[str] | None = None) -> list[str]:
    """What project and reference do not agree on, draw by draw."""
    found = []
    for outcome in run_draws(numbers, folder):
        found += [f"draw {outcome.draw.number}: {problem}" for problem in outcome.problems]
        if counts is not None:
            counts.update(outcome.counts)
    return found


@pytest.mark.parametrize("case", [pytest.param(n, id=f"{KINDS[n % len(KINDS)]}-{n}") for n in range(len(KINDS))])
def test_every_batch_metric_prediction_and_count_is_that_of_plain_numpy_and_pandas(case: int, tmp_path: Path) -> None:
    assert disagreements(range(case * DRAWS_PER_CASE, (case + 1) * DRAWS_PER_CASE), tmp_path) == []


@pytest.mark.long
@pytest.mark.parametrize("shard", range(N_LONG // N_OF_SHARD))
def test_two_thousand_draws_agree_with_plain_numpy_and_pandas(shard: int, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    assert disagreements(range(shard * N_OF_SHARD, (shard + 1) * N_OF_SHARD), tmp_path, counts) == []
    kinds = ("batches", "windows", "counts", "metrics", "predictions", "resumes", "refused draws", "refused stages")
    assert all(counts[kind] for kind in kinds)

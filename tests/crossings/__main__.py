"""Run draws by number: ``python -m crossings 17 18 100-199``, in the folder of the tests."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

from .draws import DRAWS_PER_CASE, KINDS
from .run import run_draws


def main(words: list[str]) -> int:
    """Print each disagreement, and what was compared."""
    numbers: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    counts: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for outcome in run_draws(numbers, Path(folder)):
            counts.update(outcome.counts)
            number = outcome.draw.number
            if outcome.problems:
                wrong += 1
                print(f"{number} ({KINDS[number // DRAWS_PER_CASE % len(KINDS)]}): {outcome.problems[0]}")
                for problem in outcome.problems[1:3]:
                    print(f"    {problem}")
                if len(numbers) == 1:
                    print(outcome.draw)
    print(f"{len(numbers)} draws, {wrong} with mismatches; {dict(counts)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

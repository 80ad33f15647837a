"""What a fit says of its memory."""

import subprocess
import sys

import numpy as np


def test_the_peak_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it() -> None:
    held = np.ones(1 << 27)  # 1 GiB, far more than what PyTorch takes
    code = "from lightning_app.monitor import peak_bytes; print(peak_bytes())"
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert 100_000_000 < int(shown.stdout) < held.nbytes

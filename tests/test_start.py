"""What makes a start sooner takes nothing away."""

import subprocess
import sys

CODE = """
import sys
from lightning_app.start import leave_out_signals
leave_out_signals()
import torchmetrics
assert "scipy.stats" not in sys.modules
import scipy.signal.windows
from scipy.signal import firwin
assert scipy.signal.hamming(3)[1] == 1 == firwin(1, 0.5)[0]
assert "scipy.stats" in sys.modules
"""


def test_scipy_signal_is_loaded_when_it_is_asked_for_and_not_before() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)

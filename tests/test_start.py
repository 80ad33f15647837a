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


PLOTS = """
import sys
from lightning_app.start import leave_out_plots
leave_out_plots()
import torchmetrics
assert not any(name.partition(".")[0] == "matplotlib" for name in sys.modules)
import matplotlib
matplotlib.use("agg")
from matplotlib.figure import Figure
from torch import arange
errors = torchmetrics.MeanAbsoluteError()
errors.update(arange(3.0), arange(3.0) + 1)
assert isinstance(errors.plot()[0], Figure)
of_classes = torchmetrics.ConfusionMatrix("multilabel", num_labels=2)
of_classes.update(arange(4).reshape(2, 2) % 2, arange(4).reshape(2, 2) % 2)
figure, axes = of_classes.plot()  # an array of axes, which torchmetrics tells from one by its class
assert len(figure.axes) == 2 == axes.size
both = torchmetrics.MetricCollection([errors])
try:
    both.plot(ax="no axes", together=True)
except ValueError as error:
    assert "matplotlib axis object" in str(error)
else:
    raise AssertionError
"""
FIT = """
import sys
from lightning_app.__main__ import main
sys.argv = ["lightning_app", "splits", "--help"]
try:
    main()
finally:
    from lightning_app import cli
    print([name for name in ("matplotlib", "zstore.writing", "scipy.stats") if name in sys.modules])
"""


def test_torchmetrics_is_loaded_without_matplotlib_and_draws_all_the_same() -> None:
    subprocess.run([sys.executable, "-c", PLOTS], check=True)


def test_a_command_loads_neither_what_draws_nor_what_ingests_before_it_needs_them() -> None:
    done = subprocess.run([sys.executable, "-c", FIT], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_scipy_signal_is_loaded_when_it_is_asked_for_and_not_before() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)

"""Colours of splits and forecasts, the same in every picture."""

from zstore import look

SPLITS = {"train": look.style.BLUE, "val": look.style.AMBER, "test": look.style.RED}
"""Of the targets of each split."""

OBSERVED, FORECAST = "#6a8caf", "#b3123b"
"""Of what was observed, and of what the model says."""

OBSERVED_AREA = "#c9d8e6"
"""Of what was observed, as an area below forecasts."""

CLIMATOLOGY, PERSISTENCE = "#8a8a8a", "#d98c1f"
"""Of the forecasts that a model is compared with."""

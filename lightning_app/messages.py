"""What the command line prints of what is logged, and what Lightning says that is left out."""

from __future__ import annotations

import logging
import warnings

from zstore import shown


class Printed(logging.Handler):
    """Messages as lines of what standard output is now: above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        print("\n".join(shown(line, None) for line in self.format(record).split("\n")))


def quiet() -> None:
    """Silence what Lightning says about choices made on purpose here."""
    for message in (
        ".*wandb run already in progress.*",  # of a run, whose parts have the same
        ".*args parameter is intended to run from within Python.*",  # the parts of a run are
        ".*configure_optimizers` will be overridden.*",  # the configuration's optimizer replaces the default
        ".*exists and is not empty.*",  # a run folder is used again by fit, test and predict
        ".*does not have many workers.*",
        ".*WeightAveraging callback, but loading.*",  # outside of a fit: the weights of a checkpoint are averages
        ".*is smaller than the logging interval.*",
        ".*LeafSpec.*is deprecated.*",  # inside Lightning, of torch
        ".*sync_dist=True.*",  # metrics are reduced over processes before they are logged
    ):
        warnings.filterwarnings("ignore", message=message)

"""``python -m lightning_app``."""

import os
import sys

# Between two small operations torch's threads wait for each other awake, for a millisecond or more. On a machine that
# is busy otherwise one of them is not running, and the rest burn their time: a fit of the demo took 69 s instead of 9.
# With so short a wait it takes 12 s there, and no longer than before on an idle machine. Torch reads it when loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from lightning_app.cli import main  # after what torch reads

if __name__ == "__main__":
    sys.exit(main())

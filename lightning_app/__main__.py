"""``python -m lightning_app``."""

import gc
import os
import sys

# Between two small operations torch's threads wait for each other awake, for a millisecond or more. On a machine that
# is busy otherwise one of them is not running, and the rest burn their time: a fit of the demo took 69 s instead of 9.
# With so short a wait it takes 12 s there, and no longer than before on an idle machine. Torch reads it when loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# What is imported stays, and to look for garbage among a million such objects, now and in each step's full collection,
# takes a quarter of the time of the imports: 0.8 s of 3.0 for torch and Lightning alone.
gc.disable()

from lightning_app.cli import main  # after what torch reads

gc.enable()
gc.freeze()

if __name__ == "__main__":
    sys.exit(main())

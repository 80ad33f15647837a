"""``python -m lightning_app``, and the console script ``lightning-app``."""

import gc
import sys

from lightning_app.start import leave_out_plots, leave_out_signals, share_allocator, shorten_spins


def main() -> int:
    """Run the command in the arguments of this process; what it returns is the exit code."""
    share_allocator()  # before zstore, which loads pyarrow
    from zstore import end_quietly

    return end_quietly(_main)


def _main() -> int:
    from lightning_app.front import answered

    code = answered(sys.argv[1:])
    if code is not None:
        return code
    shorten_spins()
    leave_out_signals()
    # What is imported stays, and to look for garbage among a million such objects, now and in each step's full
    # collection, takes a quarter of the time of the imports: 0.8 s of 3.0 for torch and Lightning alone.
    gc.disable()
    leave_out_plots()
    from lightning_app import cli

    gc.enable()
    gc.freeze()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())

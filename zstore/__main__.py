"""``python -m zstore`` is the `zstore` command."""

import sys

from zstore.cli import main

if __name__ == "__main__":
    sys.exit(main())

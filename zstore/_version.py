"""The version, as the installation has it: the build takes it from the tag of the commit."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("zstore")
except PackageNotFoundError:  # a tree on the path of Python that was never installed
    __version__ = "0+unknown"

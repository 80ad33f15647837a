"""A local viewer of stores: one page in the browser, served from this machine alone."""

from zstore.view.server import view

__all__ = ["view"]

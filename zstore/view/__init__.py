"""A local viewer of stores: one page in the browser, served from this machine alone.

What is here serves any part of the page, and may be used by other packages, which add parts of their own by the entry
point group ``zstore.view``. The server lies in modules of its own, which are imported by the command.
"""

from zstore.view.numbers import Clock, listed, number
from zstore.view.panel import Panel
from zstore.view.thin import Thinned

__all__ = ["Clock", "Panel", "Thinned", "listed", "number"]

"""Parts of zstore's viewer about training: the splits of a configuration, and what runs have forecast.

They are found by the entry points of the group ``zstore.view``; each is a function of the viewer's session and the run
folders that were named.
"""

from lightning_app.view.panels import runs, splits

__all__ = ["runs", "splits"]

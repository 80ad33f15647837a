"""Where configurations, notebooks and earlier releases name `Split`; the module itself is in `windows`."""

from lightning_app.data.windows.splits import Split

__all__ = ["Split"]

"""Where configurations and notebooks name `SeriesSubset`; the module itself is in `windows`."""

from lightning_app.data.windows.subset import SeriesSubset

__all__ = ["SeriesSubset"]

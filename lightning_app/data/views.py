"""Where configurations, notebooks and earlier releases name `Panel`; the module itself is in `rows`."""

from lightning_app.data.rows.views import Panel

__all__ = ["Panel"]

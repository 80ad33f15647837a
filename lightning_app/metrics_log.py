"""What a fit logs, as CSV in its run folder: of all its starts together."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from zstore import StoreError


class MetricsLog(CSVLogger):
    """Lightning's, which keeps what was logged before the checkpoint that a fit goes on from.

    Lightning deletes ``metrics.csv`` in every start. Here a fit that begins anew deletes it; one that goes on drops
    only what was logged after its checkpoint, for it logs that again.
    """

    @rank_zero_only
    def go_on(self, n_batches: int) -> None:
        """Keep what was logged in the first so many batches. To be called before anything is logged."""
        self.experiment.n_kept_batches = n_batches

    @property
    def experiment(self) -> Any:
        """What writes; made when it is first asked for, on the first process."""
        if self._experiment is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._experiment = _Writer(self.log_dir)
        return super().experiment


class _Writer(ExperimentWriter):
    """Writes rows of metrics behind those of earlier starts."""

    n_kept_batches = 0
    _is_open = False

    def _check_log_dir_exists(self) -> None:
        """Delete nothing yet: Lightning asks before it is known whether the fit goes on."""

    def save(self) -> None:
        """Write what was logged since the last call. Lightning calls it once before the first step."""
        if not self._is_open:
            self._is_open = True
            self._drop_later()
        super().save()

    def _drop_later(self) -> None:
        """Leave of an earlier file what this fit does not log again.

        Raises
        ------
        StoreError
            If it is no table of metrics, and is to be kept.
        """
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        if self.n_kept_batches == 0:
            path.unlink()
            return
        text = path.read_text(encoding="utf-8")
        rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # a kill may have torn the last line
        try:
            kept = [row for row in rows if int(row["step"]) < self.n_kept_batches]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise StoreError(
                f"metrics that a fit cannot go on with ({error})",
                expected="the rows of a fit, each with its step",
                where=str(path),
                fix="move the file away, and start again",
            ) from error
        self.metrics_keys = list(rows.fieldnames or [])
        self._replace(self.metrics_keys, kept)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Have columns for what was not logged before. Lightning's loses all rows if it is killed here."""
        with Path(self.metrics_file_path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self._replace(fieldnames, rows)

    def _replace(self, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the file anew, so that a kill leaves the old one or the new one."""
        path = Path(self.metrics_file_path)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=names)
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

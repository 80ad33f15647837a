"""Where the rows of fields are to live, and why there: the memory that there is, less what others take."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from lightning_app.data.rows.fields import FieldPlace, FieldResidency
from lightning_app.data.rows.residency import Placement, disk_free, room
from zstore import FieldReader, UsageError

logger = logging.getLogger(__name__)


class FieldRooms:
    """Where the rows of fields are to live, one after another, in the memory that others leave.

    Parameters
    ----------
    placement
        Where channels live.
    n_bytes
        Bytes of all their rows.
    device, budget, cache, n_processes
        As for :func:`choose`.
    """

    def __init__(
        self,
        placement: Placement,
        n_bytes: int,
        device: torch.device,
        budget: float | str,
        cache: Path,
        n_processes: int,
    ) -> None:
        self._device, self._n_processes, self._streamed = device, n_processes, placement.place == "stream"
        self._host = room(budget, None)
        self._gpu = room(budget, device) if device.type == "cuda" else None
        self._disk, self._cache = disk_free(cache), cache
        self._taken = dict.fromkeys(("device", "host"), 0)
        if self._streamed:
            self._taken["host"] = self._host.limit // 2  # for the pool, which needs more where rows are wide
        else:
            self._taken["device" if placement.place == "device" else "host"] = n_bytes

    @property
    def pool_bytes(self) -> int:
        """Bytes that are left to the pool of each process."""
        taken = self._taken["host"] - (self._host.limit // 2 if self._streamed else 0)
        return max(self._host.limit - taken, 0) // self._n_processes

    def choose(self, name: str, wanted: FieldResidency, reader: FieldReader) -> FieldPlace:
        """Where the rows of a field are to live; says so, and why, in one line of the log.

        Parameters
        ----------
        name, reader
            The field, and what decodes it.
        wanted
            What the user wants; ``auto`` leaves it to :meth:`fitting`.

        Raises
        ------
        UsageError
            If that is not possible.
        """
        decoded, stored, remote = reader.decoded_bytes, reader.stored_bytes, reader.remote
        if wanted == "device":
            self._require_device(name, decoded)
        place, why = (wanted, "as told") if wanted != "auto" else self.fitting(decoded, stored, remote)
        self._taken["device" if place == "device" else "host"] += {"stream": 0, "encoded": stored}.get(place, decoded)
        shown = f"{decoded / 1e9:.2f} GB decoded, {stored / 1e9:.2f} GB stored"
        logger.info(f"field {name!r}, {shown}: residency {place}, for {why}")
        return place

    def fitting(self, decoded: int, stored: int, remote: bool) -> tuple[FieldPlace, str]:
        """What ``auto`` takes for a field, and why.

        ``device`` on a GPU if decoded rows fit there; else ``host``, if they fit into memory and onto the disk of the
        cache; else ``encoded``, if what is stored fits into memory (and, of a store in a bucket, onto that disk), or
        the store is on this machine and channels do not fit either; else ``stream``.

        Parameters
        ----------
        decoded, stored
            Bytes of all rows, decoded and as they are stored.
        remote
            Whether the store is in a bucket.
        """
        lacking = self.lacking(decoded, stored, remote)
        if "device" not in lacking:
            return "device", f"it fits into {self._gpu}"
        if "host" not in lacking:
            return "host", f"it fits into {self._host}" + (f", not into {self._gpu}" if self._gpu else ": no GPU")
        if "encoded" not in lacking:
            return "encoded", f"{lacking['host']}, and those that are stored do"
        if self._streamed and not remote:
            return "encoded", f"{lacking['host']}, and channels are streamed"
        return "stream", lacking["host"]

    def lacking(self, decoded: int, stored: int, remote: bool) -> dict[str, str]:
        """By residency, why there is no room for a field; parameters as those of :meth:`fitting`."""
        left, why = self._host.limit - self._taken["host"], {}
        if self._gpu is None:
            why["device"] = "there is no GPU"
        elif decoded > self._gpu.limit - self._taken["device"]:
            why["device"] = f"decoded rows do not fit into {self._gpu}"
        if decoded > left:
            why["host"] = f"decoded rows do not fit into {self._host}"
        elif decoded > self._disk - self._taken["host"]:
            why["host"] = f"{self._cache} has {self._disk / 1e9:.2f} GB free"
        if stored > left:
            why["encoded"] = f"stored rows do not fit into {self._host}"
        elif remote and stored > self._disk - self._taken["host"]:
            why["encoded"] = f"the store is in a bucket, and {self._cache} has {self._disk / 1e9:.2f} GB free"
        return why

    def _require_device(self, name: str, n_bytes: int) -> None:
        there = self._gpu or self._host
        taken = self._taken["device"]
        if n_bytes > there.limit - taken:
            raise UsageError(
                f"field {name!r} of {n_bytes / 1e9:.2f} GB in the memory of {self._device}",
                expected=f"at most {there}" + (f", less {taken / 1e9:.2f} GB for other rows" if taken else ""),
                fix=f"a larger --data.memory_budget, or {name}: {{residency: host}} in --data.fields",
            )

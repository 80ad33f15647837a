"""How many processes torchrun or SLURM has started, so that nobody has to say it twice."""

from __future__ import annotations

import os
from typing import NamedTuple

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from zstore import UsageError


class Launched(NamedTuple):
    """Processes that somebody else has started for one fit.

    Parameters
    ----------
    by
        Who has: ``torchrun`` or ``SLURM``.
    devices
        Processes of a machine; None where it is not told.
    num_nodes
        Machines; None where it is not told.
    """

    by: str
    devices: int | None
    num_nodes: int | None


def launched() -> Launched | None:
    """The processes that this one is among; None if it was started alone, or by Lightning.

    Raises
    ------
    UsageError
        If torchrun is to start processes again that die, and those would look for the dead ones.

    Notes
    -----
    Read from the environment: `LOCAL_WORLD_SIZE` and `GROUP_WORLD_SIZE` of torchrun; `SLURM_NTASKS_PER_NODE` and
    `SLURM_NNODES` of srun.
    """
    if TorchElasticEnvironment.detect():
        _require_new_stores()
        return Launched("torchrun", _number("LOCAL_WORLD_SIZE"), _number("GROUP_WORLD_SIZE"))
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.job_name() not in ("bash", "interactive"):
        return Launched("SLURM", _number("SLURM_NTASKS_PER_NODE"), _number("SLURM_NNODES"))
    return None


def _require_new_stores() -> None:
    """Refuse to wait for the dead.

    Processes find each other by a store of torchrun. In some releases of torch it is the same one after a restart, with
    the addresses of those that died: new processes fail to connect, again and again, or wait without an end. Where
    torchrun does not share it, each start has a store of its own.
    """
    restarts = _number("TORCHELASTIC_MAX_RESTARTS") or 0
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UsageError(
            f"torchrun with --max-restarts {restarts}, whose new processes may look for those that died",
            expected="a store of addresses for each start",
            fix="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun …",
        )


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None

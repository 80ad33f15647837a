"""Notes on scratch space of work that is done, so that the run after one that was killed goes on from there."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from zstore.arrow import as_numpy, text_array
from zstore.format.commit import is_store
from zstore.format.encodings.base import form_from_json
from zstore.reading.root import committed_versions
from zstore.storage.protocol import Storage
from zstore.writing.blocks import BlockReport
from zstore.writing.left_out import LeftOutRow
from zstore.writing.object_notes import noted_keys
from zstore.writing.site import Site
from zstore.writing.sort import Spill
from zstore.writing.sources.digests import PieceDigest
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.table import BadRow
from zstore.writing.sources.workspace import NOTE, TAKEN, digest_of
from zstore.writing.sweep import needed_keys

logger = logging.getLogger(__name__)

_PLAN = "plan"


def begin(site: Site, plan: str) -> dict[str, bytes]:
    """What was noted by a run of the same plan that died; what others left is removed.

    Parameters
    ----------
    site
        Where both build, and keep what they need meanwhile.
    plan
        Everything that the work depends on, as text: sources and their states, how they are read, sizes of blocks.

    Returns
    -------
    From name to note. Whether what a note tells of is still whole is looked at where it is used.
    """
    scratch = site.scratch
    there = scratch.sizes()
    found: dict[str, bytes] = {}
    if there.get(_PLAN) == len(plan.encode()) and scratch.read(_PLAN) == plan.encode():
        found = {key.removesuffix(NOTE): scratch.read(key) for key in there if key.endswith(NOTE)}
        logger.warning("going on from a run that ended early: %d parts are done already", len(found))
    else:
        _remove_noted(site)
        scratch.remove([key for key in there if not key.startswith(TAKEN)])
        scratch.write_stream(_PLAN, (plan.encode(),))
    return found


def forget(site: Site) -> None:
    """Remove what a run that died has left, which nothing goes on from."""
    _remove_noted(site)
    site.scratch.clear()


def noted_objects(site: Site) -> set[str]:
    """Objects that notes tell of and no version needs."""
    keys = noted_keys(site.scratch)
    if keys and is_store(site.root):
        keys -= needed_keys(site.root, committed_versions(site.root))
    return keys


def _remove_noted(site: Site) -> None:
    keys = noted_objects(site)
    if keys:
        site.root.remove(keys)


def note_reports(scratch: Storage, name: str, reports: Sequence[BlockReport]) -> None:
    """Note what a task has parsed."""
    for number, report in enumerate(reports):
        _note(scratch, f"{name}-{number}", report, len(reports))


def noted_reports(
    scratch: Storage, name: str, notes: Mapping[str, bytes], source: Source
) -> tuple[BlockReport, ...] | None:
    """What a task has parsed from the notes of it; None if any of them, or a spill, is not whole.

    Parameters
    ----------
    scratch
        Where spills are.
    name
        Of the task.
    notes
        Of all tasks.
    source
        What they have read.
    """
    reports: list[BlockReport] = []
    n_reports = 1
    while len(reports) < n_reports:
        known = _noted(scratch, notes.get(f"{name}-{len(reports)}", b""), source)
        if known is None:
            return None
        report, n_reports = known
        reports.append(report)
    return tuple(reports)


def _note(scratch: Storage, name: str, report: BlockReport, n_reports: int) -> None:
    document = {
        "spill": {"key": report.spill.key, "n_rows": report.spill.n_rows, "dtypes": report.spill.dtypes},
        "digest": report.spill.digest,
        "n_reports": n_reports,
        "forms": [form.to_json() for form in report.forms],
        "bad": [asdict(row) for row in report.bad],
        "n_blank": report.n_blank,
        "seen": sorted(report.seen),
        "tallies": report.tallies,
        "pieces": report.pieces,
        "left_out": [asdict(row) for row in report.left_out],
    }
    # Not pa.array, which would import pandas to look at numpy's.
    counts = np.diff(report.starts)
    column = pa.Array.from_buffers(pa.int64(), len(counts), [None, pa.py_buffer(counts)])
    table = pa.Table.from_arrays([report.ids, column], ["ids", "counts"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({NOTE: json.dumps(document)})) as stream:
        stream.write_table(table)
    scratch.write_stream(name + NOTE, (sink.getvalue().to_pybytes(),))


def _noted(scratch: Storage, note: bytes, source: Source) -> tuple[BlockReport, int] | None:
    """A report from the note of it, and how many its task has; None if note or spill are not whole."""
    try:
        table = pa.ipc.open_stream(note).read_all()
        document = json.loads(table.schema.metadata[NOTE.encode()])
        known = document["spill"]
        spill = Spill(scratch, known["key"], known["n_rows"], tuple(known["dtypes"]), document["digest"])
    except (pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError):
        return None  # cut short when its writer was killed
    if scratch.n_bytes(spill.key) != spill.n_bytes or digest_of(scratch, spill.key, spill.n_bytes) != spill.digest:
        return None
    ids = table["ids"].combine_chunks() if len(table) else text_array([])
    report = BlockReport(
        spill,
        ids,
        np.concatenate([[0], np.cumsum(as_numpy(table["counts"], "int64"))]) if len(table) else np.zeros(1, np.int64),
        tuple(map(form_from_json, document["forms"])),
        tuple(BadRow(**{**row, "place": source.place(**row["place"])}) for row in document["bad"]),
        document["n_blank"],
        frozenset(document["seen"]),
        tuple(document["tallies"]),
        tuple(PieceDigest(*piece) for piece in document["pieces"]),
        tuple(LeftOutRow(**row) for row in document["left_out"]),
    )
    return report, document["n_reports"]

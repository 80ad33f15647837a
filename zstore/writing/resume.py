"""Notes on scratch space of work that is done, so that the run after one that was killed goes on from there."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import xxhash

from zstore.arrow import as_numpy, text_array
from zstore.format.encodings.base import form_from_json
from zstore.format.storage import File, Storage
from zstore.writing.blocks import BlockReport
from zstore.writing.sort import Spill
from zstore.writing.sources.table import BadRow

logger = logging.getLogger(__name__)

_PLAN, _NOTE = "plan", ".note"


def begin(scratch: Storage, plan: str) -> dict[str, bytes]:
    """What was noted by a run of the same plan that died; what others left is removed.

    Parameters
    ----------
    scratch
        Where both keep what they need meanwhile.
    plan
        Everything that the work depends on, as text: sources and their digests, how they are read, sizes of blocks.

    Returns
    -------
    From name to note. Whether what a note tells of is still whole is looked at where it is used.
    """
    there = scratch.sizes()
    found: dict[str, bytes] = {}
    if there.get(_PLAN) == len(plan.encode()) and scratch.read(_PLAN) == plan.encode():
        found = {key.removesuffix(_NOTE): scratch.read(key) for key in there if key.endswith(_NOTE)}
        logger.warning("going on from a run that ended early: %d parts are done already", len(found))
    else:
        scratch.remove(there)
        scratch.write_stream(_PLAN, (plan.encode(),))
    return found


def note_report(scratch: Storage, name: str, report: BlockReport) -> None:
    """Note what a parsed block holds."""
    document = {
        "spill": {"key": report.spill.key, "n_rows": report.spill.n_rows, "dtypes": report.spill.dtypes},
        "digest": report.spill.digest,
        "forms": [form.to_json() for form in report.forms],
        "bad": [asdict(row) for row in report.bad],
        "n_blank": report.n_blank,
        "seen": sorted(report.seen),
        "n_lines": report.n_lines,
    }
    # Not pa.array, which would import pandas to look at numpy's.
    counts = np.ascontiguousarray(report.counts, np.int64)
    column = pa.Array.from_buffers(pa.int64(), len(counts), [None, pa.py_buffer(counts)])
    table = pa.Table.from_arrays([report.ids, column], ["ids", "counts"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({_NOTE: json.dumps(document)})) as stream:
        stream.write_table(table)
    scratch.write_stream(name + _NOTE, (sink.getvalue().to_pybytes(),))


def noted_report(scratch: Storage, note: bytes) -> BlockReport | None:
    """A parsed block from the note of it; None if note or spill are not whole."""
    try:
        table = pa.ipc.open_stream(note).read_all()
        document = json.loads(table.schema.metadata[_NOTE.encode()])
        known = document["spill"]
        spill = Spill(scratch, known["key"], known["n_rows"], tuple(known["dtypes"]), document["digest"])
    except (pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError):
        return None  # cut short when its writer was killed
    if scratch.n_bytes(spill.key) != spill.n_bytes or _digest(scratch, spill.key, spill.n_bytes) != spill.digest:
        return None
    ids = table["ids"].combine_chunks() if len(table) else text_array([])
    return BlockReport(
        spill,
        ids,
        as_numpy(table["counts"], "int64") if len(table) else np.zeros(0, np.int64),
        tuple(map(form_from_json, document["forms"])),
        tuple(BadRow(**row) for row in document["bad"]),
        document["n_blank"],
        frozenset(document["seen"]),
        tuple(document["n_lines"]),
    )


def note_plain(file: File, name: str) -> None:
    """Note that a file was inflated."""
    document = {"key": file.key, "n_bytes": file.n_bytes, "digest": _digest(file.storage, file.key, file.n_bytes)}
    file.storage.write_stream(name + _NOTE, (json.dumps(document).encode(),))


def noted_plain(scratch: Storage, note: bytes) -> File | None:
    """An inflated file from the note of it; None if note or file are not whole."""
    try:
        known = json.loads(note)
    except ValueError:
        return None  # cut short when its writer was killed
    file = File(scratch, known["key"], known["n_bytes"])
    if scratch.n_bytes(file.key) != file.n_bytes or _digest(scratch, file.key, file.n_bytes) != known["digest"]:
        return None
    return file


def _digest(scratch: Storage, key: str, n_bytes: int) -> str:
    hasher = xxhash.xxh3_128()
    for piece in File(scratch, key, n_bytes).pieces():
        hasher.update(piece)
    return hasher.hexdigest()

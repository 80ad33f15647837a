"""Commands about what a store holds, and whether it is sound."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from jsonargparse import ArgumentParser, Namespace

from zstore.amounts import show_size
from zstore.errors import UsageError
from zstore.flags import Command, Flags, as_texts, names_of, open_named, said, say, storage_of
from zstore.look.report import to_html
from zstore.printing import print_info, show_diagnosis
from zstore.progress import shown_progress
from zstore.reading.series import Series
from zstore.reading.store import Store
from zstore.rows import shown_rows
from zstore.short_help import Short
from zstore.text import MOST_MESSAGE, counted, shown, shown_json
from zstore.upkeep.compare import compare_sources
from zstore.upkeep.doctor import examine
from zstore.upkeep.export import export
from zstore.upkeep.findings import KINDS
from zstore.upkeep.outfile import check_target, whole_file
from zstore.upkeep.verify import verify

_PAGES = (".html", ".htm")


def _info_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.own("--json", action="store_true", help="print JSON")


def _info(options: Namespace) -> int:
    store = open_named(options)
    if options.json:
        document = {key: value for key, value in store.objects.document.items() if key != "manifest"}
        print(shown_json(document))
    else:
        print_info(store)
    return 0


def _show_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.argument(Store.series, "id_", "id", "ID")
    flags.of(Series.rows, start="T", stop="T")
    flags.version()


def _show(options: Namespace) -> int:
    store = open_named(options)
    series = store.series(options.id)
    first, last = series.rows(options.start, options.stop)
    for line in shown_rows(store, first, last):
        print(line)
    return 0


def _verify_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.of(verify, workers="N", scheduler="ADDR")
    flags.own("--source", nargs="+", type=str, metavar="SRC", help="compare with these files too, row by row")
    flags.of(compare_sources, file_root="DIR", file_limit="SIZE")


def _verify(options: Namespace) -> int:
    store = open_named(options)
    with shown_progress(options.quiet) as progress:
        found = verify(
            store, **said(verify, options), progress=lambda done, total: progress("verify", done, total, "objects")
        )
    for fault in found.faults:
        print(shown(fault, MOST_MESSAGE))
    if found.faults:
        print(f"{len(found.faults)} faults in {shown(options.store)} version {store.version}", file=sys.stderr)
        return 1
    if options.source:
        return _verify_source(store, options)
    size = show_size(found.n_bytes)
    say(options, f"sound: version {store.version}, {found.n_objects:,} objects, {size} equal their digests")
    return 0


def _verify_source(store: Store, options: Namespace) -> int:
    with shown_progress(options.quiet) as progress:
        found = compare_sources(
            store,
            options.source,
            lambda done, total: progress("compare", done, total, "blocks"),
            storage_of(options),
            options.file_root,
            options.file_limit,
        )
    for fault in found.faults:
        print(shown(fault, MOST_MESSAGE))
    n_wrong = found.n_different + found.n_unseen
    text = (
        f"{found.n_rows:,} rows of the sources compared: {found.n_different:,} differ, {found.n_unseen:,} rows of the "
        f"store are in none, {found.n_bad:,} records cannot be stored"
    )
    if found.n_inexact:
        text += f"; {found.n_inexact:,} cells have more digits than the store keeps, and those were not compared"
    if n_wrong:
        print(text)
    else:
        say(options, text)
    return 1 if n_wrong else 0


def _doctor_flags(parser: ArgumentParser) -> None:
    flags, kinds = Flags(parser), "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    flags.store()
    flags.of(examine, window="ROWS", skip_fields=None, workers="N", scheduler="ADDR")
    flags.own("--html", type=str, metavar="FILE", help="write a report that works offline and on paper")
    flags.own("--json", action="store_true", help="print JSON, all findings included")
    flags.own(
        "--fail-on",
        type=as_texts,
        metavar="KIND,KIND",
        help=f"exit with 1 if any of these is found, or 'any'. {kinds}",
    )


def _doctor(options: Namespace) -> int:
    store, wanted = open_named(options), names_of(options.fail_on) or []
    for kind in wanted:
        if kind not in (*KINDS, "any"):
            raise UsageError(f"--fail-on {kind}", expected=f"any, or some of {', '.join(KINDS)}")
    if options.html is not None:
        check_target(options.html, "report", _PAGES)
    with shown_progress(options.quiet) as progress:
        found = examine(
            store,
            lambda done, total: progress("doctor", done, total, "rows"),
            storage_of(options),
            **said(examine, options),
        )
    if options.html is not None:
        with whole_file(options.html, "report", _PAGES) as path:
            path.write_text(to_html(found), encoding="utf-8")
    if options.json:
        print(shown_json(found.to_json()))
    else:
        say(options, show_diagnosis(found) + (f"\nwrote {options.html}" if options.html else ""))
    return int(any(kind in found.counts or (kind == "any" and found.counts) for kind in wanted))


def _export_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.argument(export, "target", "out", "OUT")
    flags.of(Store.sel, ids="ID,ID", where="NAME=VALUE,NAME=VALUE")
    flags.of(Series.rows, start="T", stop="T")
    flags.of(Store.sel, channels="COL,COL")
    flags.of(export, statics=None, fields="FIELD,FIELD", rows_per_file="N", overwrite=None)
    flags.version()


def _export(options: Namespace) -> int:
    store = open_named(options)
    chosen, fields = said(Store.sel, options), names_of(options.fields)
    if "where" in chosen:
        chosen["where"] = _values(store, chosen["where"])
    with shown_progress(options.quiet) as progress:
        n_rows = export(
            store.sel(**chosen),
            options.out,
            progress=lambda done, total: progress("export", done, total, "rows"),
            rows_per_file=options.rows_per_file,
            statics=options.statics,
            fields=fields,
            overwrite=options.overwrite,
        )
    say(options, f"wrote {counted(n_rows, 'row')} of {options.store} version {store.version}: {options.out}")
    left_out = [name for name in store.fields if name not in (fields or ())]
    if left_out:
        say(options, f"left out: field {', '.join(map(shown, left_out))} (--fields writes them to Parquet)")
    return 0


def _values(store: Store, given: Mapping[str, str]) -> dict[str, str | float | None]:
    """Values of static attributes as the store has them: numbers, words, or None where the text is empty."""
    values: dict[str, str | float | None] = {}
    for name, text in given.items():
        if not text or store.static(name).categories is not None:
            values[name] = text or None
            continue
        try:
            values[name] = float(text)
        except ValueError:
            raise UsageError(f"--where {name}={text}", expected=f"a number, as {name} is") from None
    return values


_DOCTOR = Short(
    "STORE",
    ("html", "window", "fail-on", "skip-fields", "workers", "json", "quiet"),
    "clusters and buckets; the whole help says what each kind of finding means",
    ("zstore doctor rivers.zarr --html report.html", "zstore doctor rivers.zarr --fail-on infinite,copy"),
)
COMMANDS = (
    Command("info", "say what a store holds", _info_flags, _info),
    Command("show", "print the rows of one series as CSV", _show_flags, _show),
    Command("verify", "compare a store with its digests", _verify_flags, _verify, quiet=True),
    Command(
        "doctor",
        "look for what is wrong with the data of a store",
        _doctor_flags,
        _doctor,
        quiet=True,
        short=_DOCTOR,
    ),
    Command("export", "write a store as CSV or Parquet", _export_flags, _export, quiet=True),
)

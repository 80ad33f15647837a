"""The layers of ARCHITECTURE.md: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import zstore

# A module imports only what stands above it; on one line, in the order of the line.
LAYERS = {
    "zstore": [
        ["_version", "text", "in_python", "errors", "memory", "sizes", "arrow", "yamlfiles", "manual"],
        [
            "storage.portable",
            "storage.beneath",
            "storage.flush",
            "storage.interrupts",
            "storage.locks",
            "storage.refusals",
        ],
        ["storage.protocol", "storage.file", "storage.folder"],
        ["storage.paths", "storage.remote", "storage.fetched", "storage.inflight", "storage.parts"],
        ["storage.bucket", "storage.urls"],
        [
            "format.layout",
            "format.encodings.base",
            "format.encodings.numbers",
            "format.encodings.words",
            "format.encodings.arrays",
            "format.rowarrays",
            "format.codecs",
            "format.documents",
            "format.arrays",
            "format.shards",
            "format.ordinals",
            "format.rule_text",
            "format.timesteps",
            "format.refusals",
            "format.parsing",
            "format.trust",
        ],
        ["format.payloads.error", "format.payloads.extras"],
        ["format.payloads.png", "format.payloads.jpeg", "format.payloads.images"],
        ["format.payloads.grid", "format.payloads.resample", "format.payloads.chain"],
        [
            "format.schema",
            "format.spans",
            "format.index",
            "format.moments",
            "format.manifest",
            "format.parts",
            "format.nodes",
            "format.soundness",
        ],
        ["format.commit"],
        ["format.outside"],
        [
            "reading.heldfile",
            "reading.rownotes",
            "reading.objectfiles",
            "reading.eviction",
            "reading.ahead",
            "reading.compared",
            "reading.objectcache",
            "reading.listed",
            "reading.root",
            "reading.objects",
            "reading.smallcolumn",
            "reading.names",
            "reading.described",
            "reading.version",
            "reading.windowshape",
            "reading.windows",
            "reading.gather",
            "reading.columns",
            "reading.ranges",
            "reading.batches",
            "reading.frames",
            "reading.dataset",
            "reading.series",
            "reading.where",
            "reading.scaling",
            "reading.cached",
            "reading.decode",
            "reading.rowfile",
            "reading.fieldchunks",
            "reading.fieldimages",
            "reading.fieldreader",
            "reading.localfield",
            "reading.fieldrows",
            "reading.volumes",
            "reading.panel",
            "reading.selection",
            "reading.store",
        ],
        ["writing.sources.refused", "writing.sources.payloads", "writing.sources.cells"],
        ["writing.sources.hdf5.presets", "writing.sources.hdf5.mapping", "writing.sources.hdf5.read_mapping"],
        [
            "writing.sources.times.parts",
            "writing.sources.times.formats",
            "writing.sources.times.together",
            "writing.sources.times.epochs",
            "writing.sources.times.zones",
            "writing.sources.times.iso",
            "writing.sources.times.spec",
            "writing.sources.times.guesses",
            "writing.sources.times.candidates",
        ],
        [
            "writing.room",
            "writing.sources.channels",
            "writing.sources.files",
            "writing.sources.digests",
            "writing.sources.table",
            "writing.sources.join",
            "writing.sources.options",
            "writing.sources.workspace",
            "writing.sources.protocol",
            "writing.sources.time_options",
            "writing.sources.columns",
            "writing.sources.base",
            "writing.sources.magic",
            "writing.sources.inflate",
            "writing.sources.numbers",
            "writing.sources.ids",
        ],
        ["writing.sources.csv.calendar"],
        [
            "writing.sources.csv.framing",
            "writing.sources.csv.table",
            "writing.sources.csv.records",
            "writing.sources.csv.record_limit",
            "writing.sources.csv.unroll",
        ],
        [
            "writing.sources.csv.header",
            "writing.sources.csv.sample",
            "writing.sources.csv.sniff",
            "writing.sources.csv.borders",
            "writing.sources.csv.exact_borders",
            "writing.sources.csv.parse",
            "writing.sources.csv.columns",
            "writing.sources.csv.blocks",
            "writing.sources.csv.lookup",
            "writing.sources.csv.source",
        ],
        [
            "writing.sources.typed.cells",
            "writing.sources.typed.moments",
            "writing.sources.typed.damage",
            "writing.sources.typed.file",
            "writing.sources.typed.table",
            "writing.sources.typed.columns",
            "writing.sources.typed.rows",
            "writing.sources.typed.spec",
            "writing.sources.typed.source",
        ],
        ["writing.sources.typed.parquet_table", "writing.sources.typed.parquet_source"],
        [
            "writing.sources.typed.arrow_frames",
            "writing.sources.typed.arrow_table",
            "writing.sources.typed.arrow_source",
        ],
        [
            "writing.sources.typed.pathless",
            "writing.sources.typed.given",
            "writing.sources.typed.given_source",
        ],
        [
            "writing.sources.sql.query",
            "writing.sources.sql.rows",
            "writing.sources.sql.databases",
            "writing.sources.sql.adbc",
            "writing.sources.sql.postgres",
            "writing.sources.sql.sqlite",
            "writing.sources.sql.duckdb",
            "writing.sources.sql.alchemy",
            "writing.sources.sql.open",
            "writing.sources.sql.parts",
            "writing.sources.sql.watermarks",
            "writing.sources.sql.order",
            "writing.sources.sql.segments",
            "writing.sources.sql.handover",
            "writing.sources.sql.spool",
            "writing.sources.sql.sample",
            "writing.sources.sql.source",
        ],
        [
            "writing.sources.hdf5.library",
            "writing.sources.hdf5.objects",
            "writing.sources.hdf5.clock",
            "writing.sources.hdf5.statics",
            "writing.sources.hdf5.episodes",
            "writing.sources.hdf5.layout",
            "writing.sources.hdf5.fields",
            "writing.sources.hdf5.sample",
            "writing.sources.hdf5.table",
            "writing.sources.hdf5.source",
        ],
        [
            "writing.sources.named_files.below",
            "writing.sources.named_files.inflate",
            "writing.sources.named_files.volume",
            "writing.sources.named_files.npy",
            "writing.sources.named_files.nifti",
            "writing.sources.named_files.nrrd",
            "writing.sources.named_files.dicom_codecs",
            "writing.sources.named_files.dicom_slice",
            "writing.sources.named_files.dicom",
            "writing.sources.named_files.reader",
            "writing.sources.named_files.options",
        ],
        [
            "writing.sources.lerobot.template",
            "writing.sources.lerobot.meta",
            "writing.sources.lerobot.table",
            "writing.sources.lerobot.sample",
            "writing.sources.lerobot.source",
        ],
        ["writing.sources.kinds"],
        [
            "writing.object_notes",
            "writing.lock",
            "writing.lease",
            "writing.sweep",
            "writing.quarantine",
            "writing.site",
            "writing.in_folder",
            "writing.in_bucket",
            "writing.target",
            "writing.threads",
            "writing.sight",
            "writing.cluster",
            "writing.scheduler",
            "writing.typed_statics",
            "writing.statics",
            "writing.sort",
            "writing.calendars",
            "writing.steps",
            "writing.left_out",
            "writing.references",
            "writing.blocks",
            "writing.bad_rows",
            "writing.resume",
            "writing.plan",
            "writing.parse",
            "writing.arguments",
        ],
        [
            "writing.segments",
            "writing.shard_parts",
            "writing.shards",
            "writing.referred",
            "writing.encoded",
            "writing.field_shards",
            "writing.field_plan",
            "writing.fields",
            "writing.spliced",
            "writing.spliced_index",
            "writing.small",
            "writing.listing",
            "writing.version",
            "writing.encode_plan",
            "writing.pipeline",
            "writing.attempts",
        ],
        ["writing.duplicates", "writing.updates", "writing.gaps", "writing.fan_in"],
        [
            "writing.receipt",
            "writing.clock",
            "writing.merge",
            "writing.notes",
            "writing.words",
            "writing.source_notes",
            "writing.ledger",
            "writing.settled",
            "writing.committed",
            "writing.behind",
            "writing.append",
        ],
        ["writing.anew", "writing.ingest", "writing.planner"],
        [
            "inspection.column",
            "inspection.frame",
            "inspection.roles",
            "inspection.command",
            "inspection.guess",
            "inspection.inspected",
            "inspection.lerobot",
            "inspection.query",
            "inspection.look",
            "inspection.tree",
            "inspection.hdf5",
        ],
        [
            "upkeep.outfile",
            "upkeep.verify",
            "upkeep.compare_fields",
            "upkeep.compare",
            "upkeep.export",
            "upkeep.history",
            "upkeep.compact",
        ],
        ["upkeep.checks", "upkeep.findings", "upkeep.odd_times"],
        ["upkeep.field_checks", "upkeep.field_rows", "upkeep.odd_images", "upkeep.odd_fields", "upkeep.doctor"],
        ["look.style", "look.template", "look.svg", "look.windows", "look.pixels", "look.fields", "look.series"],
        ["look.presence", "look.store", "look.report"],
        ["output", "amounts", "bars", "progress"],
        ["published.files", "published.tables", "published.catalog", "published.download", "published.fetching"],
        ["rows", "printing", "mistyped", "short_help", "flags"],
        [
            "view.numbers",
            "view.thin",
            "view.panel",
            "view.traces",
            "view.overview",
            "view.table",
            "view.spread",
            "view.frames",
            "view.session",
            "view.guard",
            "view.connections",
            "view.app",
            "view.server",
        ],
        [
            "commands.ingest",
            "commands.stores",
            "commands.view",
            "commands.versions",
            "commands.training",
            "commands.about",
        ],
        ["cli", "__main__"],
    ],
    "lightning_app": [
        [
            "shipped",
            "demo.whole",
            "front",
            "start",
            "batch",
            "schedules",
            "own_code",
            "arguments",
            "checkpoints",
            "messages",
            "metrics_log",
        ],
        ["data.lasting", "data.infinite", "data.patterns"],
        [
            "data.columns.calendar",
            "data.columns.roles",
            "data.columns.vectors",
            "data.columns.classes",
            "data.columns.meaning",
        ],
        [
            "data.windows.step_counts",
            "data.windows.fractions",
            "data.windows.split_table",
            "data.windows.splits",
            "data.splits",
        ],
        ["data.windows.groups", "data.windows.members", "data.windows.subset", "data.series", "data.windows.borders"],
        ["data.windows.rolling"],
        ["data.windows.spans", "data.windows.leaks"],
        [
            "data.windows.order",
            "data.windows.crops",
            "data.windows.jitter",
            "data.windows.pooled",
            "data.windows.lanes",
            "data.windows.plan",
            "data.windows.shares",
        ],
        [
            "data.scaling.quantiles",
            "data.scaling.entries",
            "data.scaling.scaler",
            "data.scaling.training",
            "data.scaling.fit",
        ],
        ["data.scaling.seasonal_error"],
        ["data.scaling.statics", "data.scaling.rowscaling", "data.scaling.clip", "data.scaling.unscaler"],
        ["data.rows.parts", "data.rows.fields"],
        ["data.rows.residency", "data.rows.observed", "data.rows.readers", "data.rows.views", "data.views"],
        [
            "data.rows.field_rooms",
            "data.rows.streamed",
            "data.rows.pool_plan",
            "data.rows.ring",
            "data.rows.pool",
            "data.rows.infinite",
        ],
        [
            "data.batches.phases",
            "data.batches.making",
            "data.batches.behind",
            "data.batches.buffers",
            "data.batches.padding",
            "data.batches.located",
            "data.batches.rowtimes",
            "data.batches.fields",
            "data.fields",
            "data.batches.source",
            "data.batches.prefetch",
            "data.batches.beside",
            "data.batches.threads",
            "data.batches.loader",
        ],
        ["data.batches.mixing"],
        ["data.options", "data.field_uses", "data.asked", "data.layout", "data.scaling.last_inputs", "data.scales"],
        ["data.batches.live"],
        ["data.selection", "data.process", "data.supply", "data.loaders"],
        ["data.old_checkpoints", "data.record", "data.stores"],
        ["data.ahead.known", "data.ahead.origins", "data.ahead.rows", "data.ahead.forecast", "data.ahead.windows"],
        ["data.facts", "data.window_data", "data.datamodule"],
        ["metrics", "scaled_errors", "quantile_errors", "losses", "naive2"],
        [
            "tasks.base",
            "tasks.extra",
            "tasks.forecast",
            "tasks.class_metrics",
            "tasks.classification",
            "tasks.multitask",
        ],
        ["tasks.mixture", "tasks.policy"],
        ["tasks.distributions", "tasks.probabilistic"],
        ["radii", "intervals", "persistence"],
        ["models.fields"],
        ["models.finite", "models.rebuild", "models.base", "models.states"],
        ["models.repeat", "models.seasonal", "models.climatology"],
        ["models.nlinear", "models.linear", "models.dlinear"],
        ["models.mlp", "models.spatialsoftmax"],
        ["models.lstm", "models.gru", "models.ealstm", "models.branchlstm", "models.tcn"],
        ["models.attention", "models.patches", "models.patchstg", "models.ensemble"],
        ["models.revin", "models.channels"],
        ["models.patchtst", "models.itransformer", "models.tide", "models.tsmixer", "models.channelmlp"],
        ["models.draws", "models.volumes", "models.cnn3d", "models.resnet3d"],
        ["models.augment", "models.tds", "models.rms"],
        [
            "audit",
            "look.style",
            "look.splits",
            "look.module",
            "look.audit",
            "look.forecasts",
            "look.chunks",
            "look.classes",
            "look.curves",
            "look.volumes",
            "look.summary",
        ],
        ["limits"],
        ["callbacks", "calibration", "saving", "rates", "seeds", "pictures", "monitor", "bar", "launchers"],
        [
            "prediction_arrays",
            "forecast_files",
            "kept",
            "predictions",
            "kept_scores",
            "evaluation",
            "precision",
            "restore",
        ],
        ["field_trials", "step_trial", "fit_plan", "tuning", "table"],
        ["owa", "fold_table", "backtest"],
        ["export.reads", "export.scaling", "export.source_model", "export.real_windows"],
        ["export.program", "export.metadata", "export.export"],
        ["forecaster"],
        [
            "rollout.environment",
            "rollout.mistakes",
            "rollout.options",
            "rollout.play",
            "rollout.report",
            "rollout.trainer",
        ],
        ["rollout.pusht"],
        ["view.folders", "view.predicted", "view.kept", "view.windows", "view.panels"],
        ["run_config", "app_cli", "completion", "cli", "__main__"],
        ["demo.catchments", "demo.compare", "demo.reach", "demo.__main__"],
    ],
}


def modules(package: str) -> dict[str, Path]:
    root = REPOSITORY / package
    found = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}
    return {name: path for name, path in found.items() if not name.endswith("__init__")}


# Methods by which a thing shows itself: where one is called, and not before, the layer that draws it is imported.
SHOWING = {"__repr__", "__str__", "_repr_html_", "plot"}


def imports(path: Path) -> set[str]:
    """Full names that a module imports: at its top, for type checkers only, or inside of a function."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef) and node.name in SHOWING:
            pending.extend(child for child in node.body if not _is_look(child))
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))
    return found


def through_packages(package: str, names: set[str]) -> set[str]:
    """Names that are imported, and with each folder of modules what its `__init__` imports."""
    files = [REPOSITORY.joinpath(*name.split("."), "__init__.py") for name in names if name.startswith(f"{package}.")]
    return names.union(*(imports(file) for file in files if file.exists()))


def _is_look(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and str(node.module).split(".")[1:2] == ["look"]


@pytest.mark.parametrize("package", LAYERS)
def test_every_module_stands_in_a_layer(package: str) -> None:
    assert sorted(modules(package)) == sorted(name for layer in LAYERS[package] for name in layer)


@pytest.mark.parametrize("package", LAYERS)
def test_a_module_imports_only_what_stands_above_it(package: str) -> None:
    order = [name for layer in LAYERS[package] for name in layer]
    for name, path in modules(package).items():
        for imported in through_packages(package, imports(path)):
            inner = imported.removeprefix(f"{package}.")
            if imported.startswith(f"{package}.") and inner in order:
                assert order.index(inner) < order.index(name), f"{name} imports {inner}"


def test_zstore_never_imports_torch_or_the_app() -> None:
    for name, path in modules("zstore").items():
        for imported in imports(path):
            assert imported.split(".")[0] not in ("torch", "pytorch_lightning", "lightning_app"), name


def test_the_app_uses_only_public_names_of_zstore() -> None:
    for name, path in modules("lightning_app").items():
        for imported in imports(path):
            if imported.startswith("zstore."):
                assert imported.removeprefix("zstore.") in zstore.__all__, f"{name} imports {imported}"


def test_storage_knows_nothing_of_stores() -> None:
    for name, path in modules("zstore").items():
        if name.startswith("storage."):
            inner = [i for i in imports(path) if i.startswith("zstore.")]
            known = ("zstore.storage.", "zstore.errors", "zstore.sizes")
            assert [i for i in inner if not i.startswith(known)] == [], name


def test_models_never_import_data() -> None:
    for name, path in modules("lightning_app").items():
        if name.startswith("models."):
            assert not [i for i in imports(path) if i.startswith("lightning_app.data")], name


def test_what_draws_stores_is_imported_when_one_shows_itself() -> None:
    code = "import sys; from zstore import *; print(*(name for name in sys.modules if '.look.' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["zstore.look.style", "zstore.look.svg", "zstore.look.template"]


def test_importing_zstore_does_not_import_what_its_command_alone_needs() -> None:
    code = "import sys; from zstore import *; print(*{'jsonargparse', 'rich', 'argparse'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_importing_zstore_does_not_import_heavy_packages() -> None:
    heavy = {"torch", "pandas", "distributed", "dask", "xarray", "zarr"}
    code = f"import sys, zstore.cli; from zstore import *; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_line_of_the_app_imports_no_heavy_package_but_torch_and_lightning() -> None:
    heavy = {"adbc_driver_manager", "dask", "distributed", "h5py", "nibabel", "pandas", "pydicom", "sklearn", "xarray"}
    heavy |= {"gymnasium", "PIL.Image", "pyarrow.dataset", "pymunk", "tensorboard", "zarr"}
    code = f"""
import sys, torch, pytorch_lightning
before = set(sys.modules)
import lightning_app.cli
print(*sorted({heavy} & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

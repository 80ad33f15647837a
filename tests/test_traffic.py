"""Panels in training: what their windows hold, patches of the map, and PatchSTG beside its equations."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from lightning_app.models import PatchSTG
from lightning_app.models.patches import Patches, kd_leaves
from lightning_app.tuning import plan
from zstore import Store, UsageError, ingest, open_store

App = Callable[..., subprocess.CompletedProcess[str]]

# Lightning's and jsonargparse's own warnings are theirs to fix; ours are errors in every other test.
pytestmark = pytest.mark.filterwarnings("default")

N_NODES, N_STEPS = 13, 600
LOOKBACK, HORIZON = 6, 4


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Speeds of sensors in two cities, every hour: waves of a day that run along the road, some of them missing.

    The last sensor begins late, the first one ends early.
    """
    folder, random = tmp_path_factory.mktemp("road"), np.random.default_rng(0)
    times = np.datetime64("2021-03-01T00", "h") + np.arange(N_STEPS)
    rows = []
    for node in range(N_NODES):
        wave = 50 + 15 * np.sin(2 * np.pi * (np.arange(N_STEPS) + 2 * node) / 24) + random.normal(0, 1, N_STEPS)
        for step in range(50 * (node == N_NODES - 1), N_STEPS - 40 * (node == 0)):
            speed = "" if random.random() < 0.05 else f"{wave[step]:.1f}"
            rows.append([f"n{node:02d}", times[step], speed, random.integers(0, 9)])
    places = [[f"n{node:02d}", 34 + random.random(), -118 + random.random(), "ab"[node % 2]] for node in range(N_NODES)]
    table = write_table(folder / "r.csv", ["sensor", "time", "speed", "count"], rows)
    statics = write_table(folder / "s.csv", ["sensor", "lat", "lng", "city"], places)
    ingest(table, folder / "road.zarr", id="sensor", time="time", static=statics)
    return open_store(folder / "road.zarr")


def module(store: Store, cache: Path, **options: Any) -> WindowDataModule:
    chosen = {
        "panel": Panel(positions=("lat", "lng")),
        "channels": ["speed", "count"],
        "targets": ["speed"],
        "time_features": ["time_of_day", "day_of_week"],
        "time_encoding": "index",
        "batch_size": 8,
        "cache": str(cache),
        **options,
    }
    return WindowDataModule(store.path, LOOKBACK, HORIZON, **chosen)


def cells(store: Store) -> np.ndarray[Any, Any]:
    """(step, node, channel) in source units, NaN where missing; from xarray, a series at a time."""
    first = int(store.index.time_start.min())
    panel = np.full((N_STEPS, N_NODES, 2), np.nan)
    for node, id_ in enumerate(store.ids.tolist()):
        frame = store.series(id_).to_pandas()
        hours = (frame.index.to_numpy().astype("datetime64[s]").astype(np.int64) - first) // 3600
        panel[hours, node] = frame[["speed", "count"]].to_numpy()
    return panel


@pytest.mark.parametrize("residency", ["host", "device", "stream"])
def test_a_panel_has_all_series_at_the_times_of_its_window(
    road: Store, tmp_path: Path, residency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_app.data.rows.readers._PIECE_BYTES", 8_000)
    data = module(road, tmp_path, residency=residency, memory_budget="65kB" if residency == "stream" else 0.5)
    wanted, first = cells(road), int(road.index.time_start.min())
    scaler, seen = data.scaler, []
    scaled = (wanted - scaler.offset) / scaler.scale
    for batch in data.train_dataloader():
        assert batch["x"].shape[1:] == (LOOKBACK, N_NODES, 2)
        for n, time in enumerate(batch["time"].tolist()):
            step = (time - first) // 3600
            seen.append(step)
            past, ahead = scaled[step - LOOKBACK : step], scaled[step : step + HORIZON, :, :1]
            np.testing.assert_allclose(batch["x"][n], np.nan_to_num(past), atol=1e-5)
            np.testing.assert_allclose(batch["y"][n], np.nan_to_num(ahead), atol=1e-5)
            np.testing.assert_array_equal(batch["mask"][n], ~np.isnan(ahead))
            hours = (time // 3600 + np.arange(-LOOKBACK, HORIZON)) % 24
            days = ((time // 3600 + np.arange(-LOOKBACK, HORIZON)) // 24 + 3) % 7
            found = torch.cat([batch["x_time"][n], batch["y_time"][n]])
            np.testing.assert_array_equal(found, np.stack([hours, days], axis=1))
            np.testing.assert_array_equal(batch["series"][n], np.arange(N_NODES))
    n_train = round(0.7 * N_STEPS)
    pool = data.pool
    assert pool is None or len(pool.plan.cuts) - 1 > pool.plan.n_slots
    assert set(seen) <= set(range(LOOKBACK, n_train - HORIZON + 1))
    assert len(set(seen)) == len(seen) == (n_train - LOOKBACK - HORIZON + 1) // 8 * 8


def test_every_window_of_validation_and_test_comes_once_and_reaches_back_only_where_told(
    road: Store, tmp_path: Path
) -> None:
    first = int(road.index.time_start.min())
    for context in ("allow", "forbid"):
        data = module(road, tmp_path, split=Split(sizes=(400, 100, 100), context=context))
        for name, low, high in (("val", 400, 500), ("test", 500, 600)):
            loader = data.val_dataloader() if name == "val" else data.test_dataloader()
            steps = [(int(time) - first) // 3600 for batch in loader for time in batch["time"]]
            low = low if context == "allow" else low + LOOKBACK
            assert steps == list(range(low, high - HORIZON + 1))


def test_a_panel_of_a_city_has_its_series_and_is_scaled_by_them(road: Store, tmp_path: Path) -> None:
    whole, wanted = module(road, tmp_path), cells(road)[: round(0.7 * N_STEPS)]
    city = module(road, tmp_path, panel=Panel(attribute="city", values=["b"]))
    listed = module(road, tmp_path, panel=Panel(ids=[f"n{node:02d}" for node in range(1, N_NODES, 2)]))
    for data in (city, listed):
        batch = next(iter(data.val_dataloader()))
        assert batch["series"][0].tolist() == list(range(1, N_NODES, 2))
        np.testing.assert_allclose(data.scaler.offset, np.nanmean(wanted[:, 1::2], axis=(0, 1)))
    np.testing.assert_allclose(whole.scaler.offset, np.nanmean(wanted, axis=(0, 1)))
    by_node = module(road, tmp_path, scale_by="series")
    np.testing.assert_allclose(by_node.scaler.offset, np.nanmean(wanted, axis=0))
    batch = next(iter(by_node.test_dataloader()))
    assert abs(float(batch["x"][..., 0].mean())) < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"panel": Panel(ids=["n99"])}, "--data.panel.ids: no id 'n99'"),
        ({"panel": Panel(attribute="city", values=["c"])}, "no series has city c; expected one of a, b"),
        ({"split": Split(by="series")}, "a panel split by series; expected by time over the store"),
        ({"time_encoding": "cyclic"}, "time features of a panel as cyclic; expected index"),
    ],
)
def test_what_a_panel_cannot_be_is_refused(road: Store, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        module(road, tmp_path, **options)


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_an_epoch_of_panels_goes_on_where_it_stood_and_is_shared_out_among_ranks(
    road: Store, tmp_path: Path, residency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_app.data.rows.readers._PIECE_BYTES", 8_000)
    options = {"residency": residency, "memory_budget": "65kB" if residency == "stream" else 0.5}
    loader = module(road, tmp_path, **options).train_dataloader()
    batches = iter(loader)
    for _ in range(5):
        next(batches)
    state, rest = loader.state_dict(), [batch["time"].tolist() for batch in batches]
    again = module(road, tmp_path, **options)
    resumed = again.train_dataloader()
    resumed.load_state_dict(state)
    assert [batch["time"].tolist() for batch in resumed] == rest
    ranks = [
        WindowLoader(again.source, loader.index, 8, True, again.seed, rank, 2, pool=again.pool) for rank in range(2)
    ]
    for parts in ranks:
        parts.load_state_dict(state)
    first, second = ([batch["time"].tolist() for batch in parts] for parts in ranks)
    assert [a + b for a, b in zip(first, second, strict=True)] == rest


def test_the_tuner_measures_panels(road: Store, tmp_path: Path) -> None:
    options = {"store": road.path, "lookback": LOOKBACK, "horizon": HORIZON, "panel": {}, "cache": str(tmp_path)}
    found = plan(options, seconds=0.05)
    assert found.rows.startswith("600 steps x 13 series x 2 channels")
    assert {each.place: each.why_not for each in found.measured}["host"] == ""


@given(st.integers(1, 300), st.integers(0, 6), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_every_node_is_in_one_leaf_and_gathering_can_be_undone(n_nodes: int, depth: int, more: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    positions = random.integers(0, 20, (n_nodes, 2)) / 7  # many at the same place
    leaves = kd_leaves(positions, depth)
    assert sorted(np.concatenate(leaves).tolist()) == list(range(n_nodes))
    assert max(map(len, leaves)) - min(map(len, leaves)) <= 1
    if n_nodes < 2**depth:
        with pytest.raises(UsageError, match="at least a node in each leaf"):
            Patches.of(positions, random.normal(size=(n_nodes, 5)), depth)
        return
    size = max(map(len, leaves)) + more
    if size - min(map(len, leaves)) > n_nodes - max(map(len, leaves)):
        return  # there are not so many others
    profiles = random.normal(size=(n_nodes, 5))
    patches = Patches.of(positions, profiles, depth, size)
    assert len(patches.gather) == size * 2**depth
    np.testing.assert_array_equal(patches.gather[patches.undo], np.arange(n_nodes))
    unit = profiles / np.linalg.norm(profiles, axis=1, keepdims=True)
    for number, slots in enumerate(patches.gather.reshape(-1, size)):
        mine = leaves[number]
        assert slots[: len(mine)].tolist() == mine.tolist()
        likeness = {other: float((unit[mine] @ unit[other]).mean()) for other in set(range(n_nodes)) - set(mine)}
        added = slots[len(mine) :].tolist()
        assert len(set(added)) == len(added)
        if added:
            left = [value for other, value in likeness.items() if other not in added]
            assert min(likeness[other] for other in added) >= max(left, default=-2) - 1e-9


def test_a_tree_is_cut_by_latitude_first() -> None:
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert [leaf.tolist() for leaf in kd_leaves(square, 1)] == [[0, 1], [2, 3]]
    assert [leaf.tolist() for leaf in kd_leaves(square, 2)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("n_nodes", "depth", "ones", "twos"), [(716, 9, 308, 204)])
def test_the_tree_of_san_diego_has_leaves_of_one_and_two(n_nodes: int, depth: int, ones: int, twos: int) -> None:
    sizes = [len(leaf) for leaf in kd_leaves(np.random.default_rng(0).random((n_nodes, 2)), depth)]
    assert (sizes.count(1), sizes.count(2), len(sizes)) == (ones, twos, 512)


def test_patches_are_drawn_on_the_map(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    positions = random.random((40, 2)) + np.array([34, -118])
    axes = Patches.of(positions, random.normal(size=(40, 24)), 3).plot(positions, merged=2)
    assert len(axes.patches) == 4
    assert axes.get_title() == "40 nodes in 4 patches"
    axes.figure.savefig(tmp_path / "map.png")


SHAPE = BatchShape(
    lookback=LOOKBACK,
    horizon=HORIZON,
    delay=0,
    n_inputs=2,
    n_targets=1,
    target_inputs=[0],
    time_sizes=[24, 7],
    n_nodes=N_NODES,
)
SMALL = {"depth": 2, "leaf_size": 5, "merged": 2, "layers": 2, "heads": 2, "patch_rows": 3}
WIDTHS = {"input_width": 6, "node_width": 4, "time_width": 3, "mlp_ratio": 1.5}


def small(**options: Any) -> PatchSTG:
    torch.manual_seed(0)
    model = PatchSTG(SHAPE, **{**SMALL, **WIDTHS, **options}).double()
    random = np.random.default_rng(2)
    model.place(Patches.of(random.random((N_NODES, 2)), random.normal(size=(N_NODES, 24)), 2, 5))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def panels(n_batch: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return cast(
        Batch,
        {
            "x": torch.randn(n_batch, LOOKBACK, N_NODES, 2, generator=random, dtype=torch.float64),
            "y": torch.randn(n_batch, HORIZON, N_NODES, 1, generator=random, dtype=torch.float64),
            "mask": torch.ones(n_batch, HORIZON, N_NODES, 1, dtype=torch.bool),
            "x_time": torch.stack(
                [torch.randint(0, size, (n_batch, LOOKBACK), generator=random) for size in (24, 7)], dim=-1
            ),
        },
    )


def attended(part: Any, tokens: list[Tensor], heads: int) -> list[Tensor]:
    """One residual step of attention and one of an MLP over some tokens, token by token and head by head."""

    def normal(norm: nn.LayerNorm, z: Tensor) -> Tensor:
        spread = ((z - z.mean()) ** 2).mean()
        return (z - z.mean()) / torch.sqrt(spread + norm.eps) * norm.weight + norm.bias

    width = len(tokens[0])
    size = width // heads
    linear = part.queries_keys_values
    qkv = [linear.weight @ normal(part.before_attention, z) + linear.bias for z in tokens]
    after = []
    for mine, z in zip(qkv, tokens, strict=True):
        found = []
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            scores = torch.stack([(mine[:width][at] * other[width : 2 * width][at]).sum() for other in qkv])
            weights = torch.exp(scores / math.sqrt(size))
            weights = weights / weights.sum()
            found.append(sum(w * other[2 * width :][at] for w, other in zip(weights, qkv, strict=True)))
        z = z + part.out.weight @ torch.cat(cast(list[Tensor], found)) + part.out.bias
        inner = part.mlp[0].weight @ normal(part.before_mlp, z) + part.mlp[0].bias
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        after.append(z + part.mlp[2].weight @ inner + part.mlp[2].bias)
    return after


def by_equations(model: PatchSTG, batch: Batch, heads: int, inside: int) -> Tensor:
    """PatchSTG from its equations, one panel, temporal patch, patch and token at a time."""
    out = torch.empty(len(batch["x"]), HORIZON, N_NODES, 1, dtype=torch.float64)
    rows, gather = model.patch_rows, model.gather.tolist()
    for n, x in enumerate(batch["x"]):
        decoded: list[list[Tensor]] = [[] for _ in range(N_NODES)]
        for begin in range(0, LOOKBACK, rows):
            times = batch["x_time"][n, begin + rows - 1].tolist()
            tokens = []
            for node in gather:
                values = model.values.weight @ x[begin : begin + rows, node].reshape(-1) + model.values.bias
                embedded = [cast(Any, table).weight[time] for table, time in zip(model.times, times, strict=True)]
                tokens.append(torch.cat([values, model.nodes[node], *embedded]))
            for in_depth, in_breadth in zip(model.in_depth, model.in_breadth, strict=True):
                patches = [tokens[low : low + inside] for low in range(0, len(tokens), inside)]
                patches = [attended(in_depth, patch, heads) for patch in patches]
                across = [attended(in_breadth, [patch[slot] for patch in patches], heads) for slot in range(inside)]
                tokens = [across[slot][number] for number in range(len(patches)) for slot in range(inside)]
            for node in range(N_NODES):
                decoded[node].append(tokens[int(model.undo[node])])
        for node in range(N_NODES):
            ahead = model.head.weight @ torch.cat(decoded[node]) + model.head.bias
            out[n, :, node] = ahead.reshape(HORIZON, 1)
    return out


@pytest.mark.parametrize(
    "options", [{}, {"merged": 1, "heads": 1, "layers": 1}, {"merged": 4, "patch_rows": None}], ids=["", "plain", "all"]
)
def test_patchstg_is_what_its_equations_say_values_and_gradients(options: dict[str, Any]) -> None:
    model, batch = small(**options), panels(2)
    chosen = {**SMALL, **options}
    slow = by_equations(model, batch, chosen["heads"], chosen["leaf_size"] * chosen["merged"])
    fast = model(batch)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    weights, names = list(model.parameters()), [name for name, _ in model.named_parameters()]
    pull = torch.randn(fast.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    of_fast, of_slow = (torch.autograd.grad((out * pull).sum(), weights) for out in (fast, slow))
    for name, mine, theirs in zip(names, of_fast, of_slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8, msg=name)
        assert float(mine.abs().max()) > 0, name


def test_patchstg_has_as_many_parameters_as_its_layers() -> None:
    width = 6 + 4 + 2 * 3
    hidden = int(1.5 * width)
    block = 2 * 2 * width + 3 * width * (width + 1) + width * (width + 1) + hidden * (width + 1) + width * (hidden + 1)
    embeddings = 6 * (3 * 2 + 1) + 4 * N_NODES + 3 * (24 + 7)
    head = (2 * width + 1) * HORIZON
    assert sum(weight.numel() for weight in small().parameters()) == embeddings + 2 * 2 * block + head


def reached(model: PatchSTG, node: int) -> set[int]:
    """Nodes whose forecast changes with the inputs of one."""
    batch = panels(1)
    nudged = cast(Batch, {**batch, "x": batch["x"].clone()})
    nudged["x"][:, :, node] += 1
    moved = (model(batch) - model(nudged)).abs().amax(dim=(0, 1, 3))
    return set(torch.nonzero(moved > 1e-12).ravel().tolist())


def test_attention_in_depth_stays_in_a_patch_and_in_breadth_in_a_slot() -> None:
    def silence(parts: nn.ModuleList) -> None:
        for part in cast(Any, parts):
            for last in (part.out, part.mlp[2]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    inside = SMALL["leaf_size"] * SMALL["merged"]
    for kept in ("depth", "breadth"):
        model = small(layers=1)
        silence(model.in_breadth if kept == "depth" else model.in_depth)
        own, gather = model.undo.numpy(), model.gather.numpy()
        group = np.arange(len(gather)) // inside if kept == "depth" else np.arange(len(gather)) % inside
        for node in range(N_NODES):
            places = np.flatnonzero(gather == node)  # padding, too, is attended to
            wanted = set(np.flatnonzero(np.isin(group[own], group[places])).tolist())
            assert reached(model, node) == wanted | {node}
    assert reached(small(), 0) == set(range(N_NODES))


def test_patchstg_can_learn_one_batch_by_heart() -> None:
    torch.manual_seed(1)
    model = PatchSTG(SHAPE, depth=2, leaf_size=5, layers=2, input_width=32, node_width=16, time_width=8)
    random = np.random.default_rng(2)
    model.place(Patches.of(random.random((N_NODES, 2)), random.normal(size=(N_NODES, 24)), 2, 5))
    batch = cast(Batch, {k: v.float() if v.dtype == torch.float64 else v for k, v in panels(4).items()})  # type: ignore[attr-defined]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(400):
        loss = (model(batch) - batch["y"]).square().mean()
        if loss.item() < 1e-3:  # Adam jumps back up where gradients have become nothing but rounding
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


def test_patchstg_names_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="PatchSTG without a panel"):
        PatchSTG(BatchShape(6, 4, 0, 1, 1, [0]))
    with pytest.raises(UsageError, match=r"PatchSTG of 16 leaves .* at most 13 leaves"):
        PatchSTG(SHAPE, depth=4)
    with pytest.raises(UsageError, match="temporal patches of 4 rows"):
        PatchSTG(SHAPE, depth=2, patch_rows=4)


def document(road: Store, folder: Path, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": {
            "store": road.path,
            "lookback": LOOKBACK,
            "horizon": HORIZON,
            "channels": ["speed"],
            "panel": {"positions": ["lat", "lng"]},
            "time_features": ["time_of_day"],
            "time_encoding": "index",
            "batch_size": 16,
            "cache": str(folder / "cache"),
        },
        "model": {**model, "init_args": {"units": "source", "series_scores": True, **model.get("init_args", {})}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "default_root_dir": str(folder / "run")},
    }


PATCHSTG = {
    "class_path": "PatchSTG",
    "init_args": {
        "depth": 2,
        "leaf_size": 4,
        "layers": 1,
        "loss_units": "source",
        "loss": {"class_path": "lightning_app.losses.MAE"},
    },
}


def test_patchstg_is_fitted_tested_and_predicts_by_series_time_and_step_also_on_two_processes(
    road: Store, tmp_path: Path, app: App, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document(road, tmp_path, PATCHSTG)))
    app("fit", "--config", "p.yaml", check=True)
    app("test", "--config", "p.yaml", check=True)
    found = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    app("predict", "--config", "p.yaml", check=True)
    with xr.open_zarr(tmp_path / "run" / "predictions.zarr") as predicted:
        assert predicted["speed"].dims == ("window", "step", "series")
        assert [str(id_) for id_ in predicted["id"].values] == road.ids.tolist()
        first = np.datetime64(int(road.index.time_start.min()), "s")
        steps = ((predicted["time"].values - first) / np.timedelta64(1, "h")).astype(int)
        error = np.abs(predicted["speed"].values - cells(road)[steps][..., 0])
    assert np.nanmean(error) == pytest.approx(found["test/mae"], rel=1e-6)
    assert np.nanmean(error[:, 2]) == pytest.approx(found["by_step"]["mae"][2], rel=1e-6)
    two = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.default_root_dir", "two")
    run("lightning_app", "test", "--config", "p.yaml", *two, "--ckpt_path", "run/checkpoints/best.ckpt", check=True)
    shared = json.loads((tmp_path / "two" / "test_metrics.json").read_text())
    for name in ("test/mse", "test/mae", "test/rmse", "test/r2"):
        assert shared[name] == pytest.approx(found[name], rel=1e-6)
    np.testing.assert_allclose(shared["by_step"]["rmse"], found["by_step"]["rmse"], rtol=1e-6)


@pytest.mark.parametrize("model", ["Repeat", "Climatology", "LSTM"])
def test_a_model_of_single_series_sees_in_a_panel_what_it_sees_without(
    road: Store, tmp_path: Path, app: App, model: str
) -> None:
    """Windows lie where no series ends, begins or has a gap, so both views have the same."""
    documents = {"panel": document(road, tmp_path, {"class_path": model})}
    documents["panel"]["data"]["split"] = {"dates": ["2021-03-04", "2021-03-20", "2021-03-21", "2021-03-23"]}
    if model == "LSTM":
        documents["panel"]["data"]["time_features"] = None
    documents["single"] = {**documents["panel"], "data": {**documents["panel"]["data"], "panel": None}}
    found = {}
    for name, chosen in documents.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(chosen))
        if model == "LSTM" and name == "panel":
            app("fit", "--config", "panel.yaml", check=True)
        app("test", "--config", f"{name}.yaml", check=True)
        found[name] = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    assert "![scores map](scores_map.png)" in (tmp_path / "run" / "summary.md").read_text()
    assert (tmp_path / "run" / "scores_map.png").read_bytes()[:4] == b"\x89PNG"
    assert found["panel"]["n_windows"] * N_NODES == found["single"]["n_windows"]
    for name in ("test/mse", "test/mae", "test/r2"):
        assert found["panel"][name] == pytest.approx(found["single"][name], rel=1e-5)

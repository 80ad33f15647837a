"""Vectors on steps of their own: those rows of a plain loop, scaled, padded and clipped as inputs are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL_GRID, write_table
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from padded import SHAPES, plain_windows

from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.columns.vectors import VectorOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.views import Panel
from lightning_app.data.windows.splits import NoWindowError
from zstore import NotFoundError, Store, UsageError, WindowShape, ingest, open_store

App = Callable[..., subprocess.CompletedProcess[str]]
VECTORS: dict[str, Any] = {"arm": {"steps": 2, "stride": 3}, "v": 1}


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three series with gaps: a vector of three channels, of which one is missing at times, and two channels."""
    folder, rng = tmp_path_factory.mktemp("arms"), np.random.default_rng(3)
    rows: list[list[Any]] = []
    for number, length in enumerate((60, 45, 20)):
        for step in range(length):
            if step in (17, 18, 40):
                continue
            n = len(rows) + 1
            rows.append(
                [f"s{number}", step, n, n / 4, "" if rng.random() < 0.3 else -n, step % 7, step % 5, "ab"[n % 2]]
            )
    header = ["id", "t", "arm.0", "arm.1", "arm.2", "v", "w", "kind"]
    ingest(write_table(folder / "r.csv", header, rows), folder / "s.zarr", id="id", time="t", **SMALL_GRID)
    return open_store(folder / "s.zarr")


def module(store: Store, lookback: int = 6, horizon: int = 2, **options: Any) -> WindowDataModule:
    usual: dict[str, Any] = {"scaler": "none", "batch_size": 5, "channels": ["w"], "targets": ["w"]}
    usual |= {"split": Split(sizes=(25, 14, 20)), "memory_budget": "60kB"}
    usual |= {"cache": str(Path(store.path).parent / "cache"), **options}
    given_ = {name: VectorOptions(**own) if isinstance(own, dict) else own for name, own in VECTORS.items()}
    return WindowDataModule(str(store.path), lookback, horizon, **{"vectors": given_, **usual})


def values_of(store: Store) -> dict[str, Any]:
    read = {name: np.nan_to_num(store.read(name, 0, store.n_rows)) for name in ("arm.0", "arm.1", "arm.2", "v", "w")}
    return {"arm": np.stack([read[f"arm.{n}"] for n in range(3)], axis=1), "v": read["v"][:, None]}


@pytest.mark.parametrize("residency", ["host", "stream", "device"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    own=st.fixed_dictionaries({name: st.tuples(st.integers(1, 4), st.integers(1, 3)) for name in ("arm", "v")}),
    name=st.sampled_from(["val", "test"]),
)
def test_steps_of_vectors_are_those_of_a_plain_loop(
    arms: Store, residency: str, shape: WindowShape, own: dict[str, tuple[int, int]], name: Any
) -> None:
    assume(all((steps - 1) * stride < shape.lookback for steps, stride in own.values()))
    window = {key: getattr(shape, key) for key in ("delay", "stride", "target_stride", "pad_before", "pad_after")}
    vectors = {key: VectorOptions(*steps) for key, steps in own.items()}
    given_ = {**window, "evaluation_stride": shape.stride, "residency": residency, "vectors": vectors}
    data = module(arms, shape.lookback, shape.horizon, **given_)
    plain, values = plain_windows(arms.index.runs, shape, data.view.ranges(name), True), values_of(arms)
    if not plain:
        with pytest.raises(NoWindowError):
            getattr(data, f"{name}_dataloader")()
        return
    n_seen = 0
    for batch in getattr(data, f"{name}_dataloader")():
        for n in range(len(batch["x"])):
            for key, (steps, stride) in own.items():
                rows = plain[n_seen].inputs[shape.lookback - 1 - (steps - 1) * stride :: stride]
                known = np.stack([values[key][row] * (not zero) for row, _, zero in rows])
                np.testing.assert_array_equal(batch[key][n].numpy(), known)
            n_seen += 1
    assert n_seen == len(plain)
    data.close()


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_ranks_share_out_the_same_vectors_and_a_fit_goes_on_with_them(arms: Store, residency: str) -> None:
    data = module(arms, residency=residency, batch_size=8, pad_before="repeat")
    index, source = data.index("train"), data.source

    def loader(rank: int = 0, world: int = 1) -> WindowLoader:
        return WindowLoader(source, index, 8, True, 1, rank, world, pool=data.pool)

    whole: list[Any] = list(loader())
    ranks: list[list[Any]] = [list(loader(rank, 2)) for rank in range(2)]
    if residency == "host":  # rows that are streamed are dealt to ranks by lanes
        for number, batch in enumerate(whole):
            assert torch.equal(torch.cat([own[number]["arm"] for own in ranks]), batch["arm"])
    else:
        together = sorted(tuple(row.flatten().tolist()) for own in ranks for batch in own for row in batch["arm"])
        assert together == sorted(tuple(row.flatten().tolist()) for batch in whole for row in batch["arm"])
    again = loader()
    again.load_state_dict({**again.state_dict(), "epoch": 0, "consumed": 3})
    rest: list[Any] = list(again)
    assert all(torch.equal(one["arm"], two["arm"]) for one, two in zip(whole[3:], rest, strict=True))


def test_vectors_are_scaled_and_clipped_as_inputs_are(arms: Store) -> None:
    names = ["arm", "v", "w"]
    own = {name: VectorOptions(6) for name in ("arm", "v")}
    given_: dict[str, Any] = {"channels": names, "scaler": {"*": "quantile", "v": "minmax"}, "vectors": own}
    data = module(arms, pad_before="zero", **given_)
    batches: list[Any] = list(data.val_dataloader())
    for batch in batches:
        joined = torch.cat([batch["arm"], batch["v"]], dim=2)
        assert torch.equal(joined, batch["x"][:, :, :4])
        assert batch["arm"].abs().max() <= 1
        assert batch["arm"].untyped_storage().data_ptr() != batch["x"].untyped_storage().data_ptr()


def test_inputs_are_all_other_channels_unless_they_are_named(arms: Store) -> None:
    data = module(arms, channels=None, targets=["arm.0"])
    assert data.inputs == ["w"]
    assert data.columns == ["w", "arm.0", "arm.1", "arm.2", "v"]
    assert data.shape.vectors == {"arm": [2, 3], "v": [1, 1]}
    assert "arm of the last 2 rows, 3 apart, v of the last 1 row" in repr(data)
    assert module(arms, channels=["arm", "w"]).inputs == ["arm.0", "arm.1", "arm.2", "w"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"vectors": {"arm": 7}}, "7 steps of 'arm', 1 rows apart"),
        ({"vectors": {"arm": 0}}, "0 steps of 'arm'"),
        ({"vectors": {"kind": 1}}, "vector 'kind' of words"),
        ({"panel": Panel()}, "vectors (arm, v) of a panel"),
    ],
)
def test_vectors_that_no_window_has_are_refused(arms: Store, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        module(arms, **options)
    assert told in str(refused.value)


def test_a_vector_that_the_store_does_not_have_is_named(arms: Store) -> None:
    with pytest.raises(NotFoundError, match="'leg'"):
        module(arms, vectors={"leg": 1})


def test_a_checkpoint_keeps_to_its_vectors_and_older_ones_have_none(arms: Store) -> None:
    data = module(arms)
    data.val_dataloader()
    state = data.state_dict()
    other = module(arms, vectors=None, targets=None, channels=None)
    other.load_state_dict(state)
    assert other.shape == data.shape
    batch: Any = next(iter(other.val_dataloader()))
    known: Any = next(iter(data.val_dataloader()))
    assert torch.equal(batch["arm"], known["arm"])
    with pytest.raises(UsageError, match=r"checkpoint trained on vectors arm \(2 steps, 3 rows apart\)"):
        module(arms, vectors={"arm": 1}).load_state_dict(state)
    older = {name: value for name, value in state["meaning"].items() if name != "vectors"}
    assert Meaning.from_json(older).vectors == {}
    for wrong in ([0, 1, ["v"]], [1, 1, []], [1, 1, "v"], [1, ["v"]], [1.5, 1, ["v"]], None):
        with pytest.raises(UsageError, match="does not say what its columns mean"):
            Meaning.from_json({**state["meaning"], "vectors": {"arm": wrong}})


@pytest.mark.filterwarnings("ignore::Warning")  # Lightning's
def test_a_configuration_names_them_as_it_names_fields(arms: Store, app: App, tmp_path: Path) -> None:
    given_ = {"store": str(arms.path), "lookback": 6, "horizon": 2, "targets": ["w"], "vectors": VECTORS}
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "accelerator": "cpu"}
    trainer |= {"logger": False, "default_root_dir": str(tmp_path / "run"), "enable_progress_bar": False}
    config = {
        "data": {**given_, "split": {"sizes": [25, 14, 20]}, "cache": str(tmp_path / "cache")},
        "model": {"class_path": "Linear"},
        "trainer": trainer,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    app("fit", "--config", "c.yaml", check=True)

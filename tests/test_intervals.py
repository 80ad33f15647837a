"""Intervals by split conformal prediction: which error is the radius, for which series, kept and used how."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app import load
from lightning_app.batch import BatchShape
from lightning_app.intervals import Intervals, levels_of
from lightning_app.radii import IntervalOptions, Radii, find_radii
from lightning_app.tasks import Classification, Forecast, ProbabilisticForecast
from zstore import StoreError, UsageError, ingest

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

App = Callable[..., Any]
LEVELS = [0.5, 0.8, 0.95]
IDS = ["a", "b", "c", "d"]


# Which error is the radius --------------------------------------------------------------------------------------------


def radius(errors: Any, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n errors, from its definition; NaN where they are too few for 95 %."""
    seen = sorted(float(error) for error in errors if not np.isnan(error))
    return seen[math.ceil(round((len(seen) + 1) * level, 9)) - 1] if len(seen) >= 19 else math.nan


@settings(max_examples=few(60), deadline=None)
@given(st.integers(0, 999), st.integers(35, 90), st.sampled_from([1, 3]), st.sampled_from(["series", "all"]))
def test_radii_are_those_of_their_definition_in_whatever_order_windows_come(
    seed: int, n: int, n_ends: int, by: Any
) -> None:
    random = np.random.default_rng(seed)
    series, spread = random.integers(0, 3, n), np.array([[1.0, np.nan], [10.0, 2.0], [0.1, 0.5], [4.0, 4.0]])
    errors = random.normal(0, 1, (n, 2, 2, n_ends)).astype(np.float32)
    errors[random.random((n, 2, 2)) < 0.1] = np.nan
    found = find_radii(errors, series, IDS, spread, LEVELS, by)
    order = random.permutation(n)
    again = find_radii(errors[order], series[order], IDS, spread, LEVELS, by)
    np.testing.assert_array_equal(found.of(IDS), again.of(IDS))
    of = found.of([*IDS, "another"])
    for step, target, number in np.ndindex(2, 2, len(LEVELS)):
        each = errors[:, step, target, min(number, n_ends - 1)]
        with np.errstate(invalid="ignore"):
            pooled = radius(each / spread[series, target], LEVELS[number])
        plain = radius(each, LEVELS[number])
        assert of[4, step, target, number] == np.float32(plain)
        for position in range(4):
            own = each[series == position]
            every = [radius(own, LEVELS[number])] if by == "series" else []
            every += [pooled * spread[position, target], plain]
            expected = next(each for each in every if not np.isnan(each))
            assert of[position, step, target, number] == pytest.approx(expected, rel=1e-6)
    assert (np.diff(of, axis=-1) >= 0).all() or n_ends == 3  # of one error, wider intervals hold narrower ones


def test_exchangeable_errors_are_held_as_often_as_the_level_says() -> None:
    """Of n = 19 errors the radius of 95 % is the largest: it holds another one with a probability of 19 / 20."""
    random = np.random.default_rng(0)
    draws = np.abs(random.standard_t(3, (4000, 20))).astype(np.float32)
    inside = []
    for draw in draws:
        found = find_radii(draw[:19, None, None, None], np.zeros(19, np.int64), ["a"], np.ones((1, 1)), [0.95], "all")
        inside.append(draw[19] <= found.of(["a"])[0, 0, 0, 0])
    assert np.mean(inside) == pytest.approx(0.95, abs=0.011)  # three standard errors


def test_too_few_errors_for_a_level_are_refused() -> None:
    errors = np.zeros((18, 2, 1, 1), np.float32)
    with pytest.raises(UsageError, match=r"18 validation errors of target 1 at step 1; expected 19 at least .* 95 %"):
        find_radii(errors, np.zeros(18, np.int64), ["a"], np.ones((1, 1)), LEVELS, "series")
    find_radii(errors, np.zeros(18, np.int64), ["a"], np.ones((1, 1)), [0.8], "series")


def test_wrong_levels_and_tasks_without_ends_are_refused() -> None:
    for levels in ([0.0], [1.0], [-0.5], [80.0], [math.nan], [0.95, 0.950000001]):
        with pytest.raises(UsageError, match="expected shares between 0 and 1"):
            IntervalOptions(levels)
    assert IntervalOptions([0.8, 0.5, 0.8]).levels == [0.5, 0.8]
    ProbabilisticForecast(levels=[0.1, 0.9]).require_ends([0.8])
    with pytest.raises(UsageError, match=r"an interval of 50 % without the quantiles 0\.25 and 0\.75; expected one of"):
        ProbabilisticForecast(levels=[0.1, 0.9]).require_ends([0.5])
    with pytest.raises(UsageError, match="intervals of a Classification; expected a forecast of numbers"):
        Classification().require_ends([0.5])


@given(st.integers(0, 99), st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
@settings(max_examples=few(25), deadline=None)
def test_radii_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ids: list[str]
) -> None:
    random, path = np.random.default_rng(seed), tmp_path_factory.mktemp("r") / "best.npz"
    ids = [id_.rstrip("\0") or "x" for id_ in ids]
    errors, series = random.normal(size=(60, 2, 1, 1)).astype(np.float32), random.integers(0, len(ids), 60)
    found = find_radii(errors, series, ids, random.random((len(ids), 1)), LEVELS, "series")
    found = Radii(**{**vars(found), "about": {"weights": "abc", "by": "series"}})
    found.write(path)
    again = Radii.read(path)
    assert (again.ids, again.levels, again.about) == (found.ids, found.levels, found.about)
    np.testing.assert_array_equal(found.of([*ids, "?" * 9]), again.of([*ids, "?" * 9]))
    assert again.matches({"weights": "abc", "levels": LEVELS})
    assert not again.matches({"weights": "abd"})


def test_damaged_files_of_radii_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.npz"
    errors = np.ones((30, 1, 1, 1), np.float32)
    found = find_radii(errors, np.zeros(30, np.int64), ["a"], np.ones((1, 1)), [0.5], "series")
    found.write(path)
    content = path.read_bytes()
    Radii(**{**vars(found), "plain": np.full((1, 1, 1), np.nan)}).write(tmp_path / "nan.npz")
    Radii(**{**vars(found), "ids": ("a", "b")}).write(tmp_path / "two.npz")
    wrong = [content[:-30], b"", b"PK" + content[2:80], (tmp_path / "nan.npz").read_bytes()]
    for damaged in [*wrong, (tmp_path / "two.npz").read_bytes()]:
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"intervals that cannot be read .* remove the file"):
            Radii.read(path)


# Ends -----------------------------------------------------------------------------------------------------------------

SHAPE = BatchShape(4, 2, 0, 1, 2, [0, 0])


def given_to(task: Any, radii: Any, outputs: torch.Tensor, ids: tuple[str, ...] = ("a", "b")) -> Any:
    """Bounds of two windows, of the series 0 and 1."""
    task.suit(SHAPE)
    n_levels = radii.shape[-1]
    shape = (2, 2, n_levels)
    about = Radii(
        tuple(LEVELS[:n_levels]), ids, radii.astype(np.float32), np.ones(shape), np.ones(shape), np.ones((2, 2)), {}
    )
    intervals = Intervals(about, ["a", "b"], np.zeros((2, 2)), torch.device("cpu"))
    return intervals.bounds(task, outputs, {"series": torch.tensor([0, 1])})  # type: ignore[typeddict-item]


def test_the_interval_of_a_number_reaches_as_far_below_it_as_above() -> None:
    outputs = torch.randn(2, 2, 2)
    radii = np.random.default_rng(0).random((2, 2, 2, 3))
    low, high = given_to(Forecast(), radii, outputs)
    torch.testing.assert_close(low, outputs[..., None] - torch.from_numpy(radii).float())
    torch.testing.assert_close(high, outputs[..., None] + torch.from_numpy(radii).float())


def test_the_interval_of_quantiles_is_widened_or_narrowed_and_its_ends_never_cross() -> None:
    task = ProbabilisticForecast(levels=[0.1, 0.25, 0.75, 0.9])
    task.suit(SHAPE)
    outputs = torch.randn(2, 2, task.n_outputs)
    ends = task.ends(outputs, [0.5, 0.8])
    quantiles = task._read.quantiles(task._by_target(outputs))
    torch.testing.assert_close(ends[0], quantiles[..., [1, 0]])
    torch.testing.assert_close(ends[1], quantiles[..., [2, 3]])
    low, high = given_to(task, np.full((2, 2, 2, 2), 0.25), outputs)
    torch.testing.assert_close((low, high), (ends[0] - 0.25, ends[1] + 0.25))
    low, high = given_to(task, np.full((2, 2, 2, 2), -100.0), outputs)
    middle = (ends[0] + ends[1]) / 2
    torch.testing.assert_close((low, high), (middle, middle))


def test_levels_of_intervals_are_pairs_of_quantiles() -> None:
    assert levels_of([0.5, 0.8]) == pytest.approx([0.1, 0.25, 0.75, 0.9])


# Runs -----------------------------------------------------------------------------------------------------------------


def noise(folder: Path, days: int = 400, lengths: dict[str, int] | None = None) -> None:
    """Series of independent noise: a brook, and a river a hundred times as large."""
    random = np.random.default_rng(0)
    sizes = {"brook": 0.1, "river": 10.0}
    rows = [
        [id_, day, round(size * float(random.normal(5, 1)), 5)]
        for id_, size in sizes.items()
        for day in range((lengths or {}).get(id_, days))
    ]
    ingest(write_table(folder / "s.csv", ["id", "t", "v"], rows), folder / "s.zarr", id="id", time="t", overwrite=True)


def config(folder: Path, model: dict[str, Any], data: dict[str, Any] | None = None, **more: Any) -> None:
    own = {"store": "s.zarr", "cache": "cache", "lookback": 4, "horizon": 2, "batch_size": 32}
    document = {
        "data": {**own, "split": {"sizes": [0.4, 0.3, 0.3]}, **(data or {})},
        "model": model,
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False, "default_root_dir": "run"},
        "intervals": {"levels": LEVELS},
        **more,
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(document))


POINT = {"class_path": "LSTM", "init_args": {"hidden": 4}}
HEAD = {
    "class_path": "Ensemble",
    "init_args": {
        "member": "LSTM",
        "members": 2,
        "member_args": {"hidden": 4},
        "task": {"class_path": "ProbabilisticForecast", "init_args": {"units": "source"}},
    },
}


@pytest.mark.parametrize(
    ("model", "panel"),
    [
        pytest.param(POINT, False, id="numbers"),
        pytest.param(HEAD, True, id="an ensemble with quantiles, of panels"),
        pytest.param(POINT, True, id="numbers, of panels", marks=pytest.mark.long),
        pytest.param(HEAD, False, id="an ensemble with quantiles", marks=pytest.mark.long),
    ],
)
def test_a_run_finds_intervals_that_hold_what_they_say_of_small_and_large_series(
    app: App, tmp_path: Path, model: dict[str, Any], panel: bool
) -> None:
    noise(tmp_path)
    config(tmp_path, model, {"scale_by": "series", **({"panel": {}} if panel else {})})
    done = app("run", "--config", "c.yaml", check=True)
    assert "intervals of 50, 80, 95 % from the errors of" in done.stdout
    found = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    for level in LEVELS:
        assert found[f"test/interval_coverage_{100 * level:g}"] == pytest.approx(level, abs=0.07)
        assert len(found["by_step"][f"interval_width_{100 * level:g}"]) == 2
    assert "| interval_width_95 |" in (tmp_path / "run" / "summary.md").read_text()
    written = xr.open_zarr(tmp_path / "run" / "predictions.zarr").load()
    dims = ("window", "step", *(["series"] if panel else []), "interval")
    assert (written.v_lower.dims, written.interval.to_numpy().tolist()) == (dims, LEVELS)
    inside = (written.v_lower <= written.v_observed) & (written.v_observed <= written.v_upper)
    widths = written.v_upper - written.v_lower
    for level in LEVELS:
        share = float(inside.sel(interval=level).mean())
        assert share == pytest.approx(found[f"test/interval_coverage_{100 * level:g}"], abs=0.006)
    by_id = widths.groupby("id").median(...) if not panel else widths.median(["window", "step", "interval"])
    assert float(by_id.sel(id="river") if not panel else by_id[1]) > 30 * float(by_id[0])
    if model is POINT:
        middle = (written.v_upper + written.v_lower) / 2
        np.testing.assert_allclose(middle, np.repeat(written.v.to_numpy()[..., None], 3, axis=-1), rtol=1e-5)
    tomorrow = load(tmp_path / "run").forecast()
    app("predict", "--config", "c.yaml", "--data.predict_on", "future", check=True)
    ahead = xr.open_zarr(tmp_path / "run" / "predictions.zarr")
    for end in ("lower", "upper"):
        for place, level in enumerate(LEVELS):
            values = ahead[f"v_{end}"][..., place]
            values = values.transpose("window", "series", "step") if panel else values
            np.testing.assert_allclose(tomorrow[f"v_{end}{100 * level:g}"], values.to_numpy().ravel(), rtol=1e-6)


def test_intervals_are_the_errors_of_the_validation_windows_of_each_series_in_source_units(
    app: App, tmp_path: Path
) -> None:
    noise(tmp_path)
    config(tmp_path, {"class_path": "SeasonalRepeat", "init_args": {"season": 3}})
    app("predict", "--config", "c.yaml", "--data.predict_on", "val", check=True)
    val = xr.open_zarr(tmp_path / "run" / "predictions.zarr").load()
    errors = np.abs(val.v - val.v_observed)
    for level in LEVELS:
        for id_ in ("brook", "river"):
            here = (val.id == id_).to_numpy()
            for step in range(2):
                expected = radius(errors[here, step], level)
                width = (val.v_upper - val.v_lower).sel(interval=level)[here, step]
                np.testing.assert_allclose(width, 2 * expected, rtol=1e-4, atol=1e-4)  # of 50, as float32 has them


def test_intervals_of_other_weights_levels_or_splits_are_found_anew_and_else_kept(app: App, tmp_path: Path) -> None:
    noise(tmp_path)
    config(tmp_path, POINT)
    assert "wrote run/intervals/best.npz" in app("fit", "--config", "c.yaml", check=True).stdout
    kept = (tmp_path / "run" / "intervals" / "best.npz").read_bytes()
    assert "intervals of" not in app("test", "--config", "c.yaml", check=True).stdout
    assert (tmp_path / "run" / "intervals" / "best.npz").read_bytes() == kept
    assert "intervals of 80 %" in app("test", "--config", "c.yaml", "--intervals.levels", "[0.8]", check=True).stdout
    sizes = ("--data.split.sizes", "[0.4, 0.2, 0.4]")
    assert "intervals of 50, 80, 95 %" in app("test", "--config", "c.yaml", *sizes, check=True).stdout
    app("test", "--config", "c.yaml", "--ckpt_path", "last", check=True)
    assert (tmp_path / "run" / "intervals" / "last.npz").is_file()
    assert "v_lower80" in load(tmp_path / "run").forecast()
    app("fit", "--config", "c.yaml", "--seed_everything", "5", "--intervals.levels", "null", check=True)
    assert "v_lower80" not in load(tmp_path / "run").forecast()  # the file is of the weights before


def test_series_with_few_windows_or_none_take_the_radius_of_all_as_a_multiple_of_their_spread(
    app: App, tmp_path: Path
) -> None:
    noise(tmp_path, lengths={"brook": 175})  # of 400 days: 15 in val
    config(tmp_path, {"class_path": "Repeat"})
    done = app("test", "--config", "c.yaml", "--data.split.over", "store", check=True)
    assert "1 of 2 series have fewer than 19 at some step" in done.stdout
    radii = Radii.read(tmp_path / "run" / "intervals" / "Repeat.npz")
    found = radii.of(["brook", "river", "new"])
    assert np.isnan(radii.own).all(axis=(1, 2, 3)).tolist() == [True, False]
    np.testing.assert_allclose(found[0], radii.relative * radii.spread[0], rtol=1e-6)
    assert (found[1] > 50 * found[0]).all()
    np.testing.assert_allclose(found[2], radii.plain, rtol=1e-6)


def test_what_intervals_cannot_be_made_of_is_refused_before_the_fit(app: App, tmp_path: Path) -> None:
    noise(tmp_path)
    config(tmp_path, HEAD)
    done = app("fit", "--config", "c.yaml", "--intervals.levels", "[0.6]")
    assert (done.returncode, "an interval of 60 % without the quantiles 0.2 and 0.8" in done.stderr) == (2, True)
    config(tmp_path, POINT, {"split": {"sizes": [0.6, 0.0, 0.4]}})
    done = app("fit", "--config", "c.yaml")
    assert (done.returncode, "intervals without validation windows" in done.stderr) == (2, True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_two_processes_find_the_intervals_and_coverage_of_one(app: App, run: App, tmp_path: Path) -> None:
    noise(tmp_path)
    config(tmp_path, {"class_path": "Repeat", "init_args": {"units": "source"}}, {"batch_size": 18})
    app("test", "--config", "c.yaml", check=True)
    two = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.default_root_dir", "two")
    run("lightning_app", "test", "--config", "c.yaml", *two, check=True)
    one, other = (tmp_path / folder / "intervals" / "Repeat.npz" for folder in ("run", "two"))
    ids = ["brook", "river", "new"]
    np.testing.assert_array_equal(Radii.read(one).of(ids), Radii.read(other).of(ids))
    ours, theirs = (json.loads((tmp_path / f / "test_metrics.json").read_text()) for f in ("run", "two"))
    for name in (f"test/interval_{what}_{level:g}" for what in ("coverage", "width") for level in (50, 80, 95)):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-12)

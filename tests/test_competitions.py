"""The last steps of each series as test, sMAPE and MASE: as forecast competitions split and measure, in plain numpy."""

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import SMALL_GRID, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.scaling.seasonal_error import seasonal_errors
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.splits import NAMES, Split
from lightning_app.metrics import MaskedErrors
from lightning_app.models import SeasonalRepeat
from lightning_app.scaled_errors import RootScaledErrors, ScaledErrors
from zstore import NotFiniteError, Store, UsageError, ingest, open_store

Rows = dict[int, float]  # the value at each step, NaN where it is missing
LAST = Split(over="series", sizes=(-1, 0, 4))


def make(folder: Path, series: Sequence[Rows], **options: Any) -> Store:
    """A store of some series of the channel v, whose steps are whole numbers."""
    rows = [
        [f"s{n}", step, "" if np.isnan(value) else repr(value)]
        for n, own in enumerate(series)
        for step, value in sorted(own.items())
    ]
    options = {"id": "id", "time": "t", "freq": "1", "channels": ["v"], **options}
    ingest(write_table(folder / "r.csv", ["id", "t", "v"], rows), folder / "s.zarr", overwrite=True, **options)
    return open_store(folder / "s.zarr")


def seasonal_error(training: Rows, season: int, power: int = 1) -> float:
    """The mean of |v(t) - v(t - season)| to some power, from its definition."""
    pairs = [abs(value - training[t - season]) for t, value in training.items() if t - season in training]
    observed = [pair for pair in pairs if not np.isnan(pair)]
    return float(np.mean(np.array(observed) ** power)) if observed else np.nan


def errors_of(store: Store, split: Split, season: int, power: int = 1) -> list[float]:
    found: list[float] = seasonal_errors(store, split, Scaler.identity(["v"]), season)[power - 1][:, 0].tolist()
    return found


VALUE = st.floats(-1000, 1000).map(lambda value: round(value, 2)) | st.just(np.nan)
SERIES = st.one_of(
    st.dictionaries(st.integers(0, 60), VALUE, min_size=1),  # with gaps
    st.lists(VALUE, min_size=1, max_size=50).map(lambda values: dict(enumerate(values))),
    st.integers(1, 40).map(lambda n: dict.fromkeys(range(n), 7.25)),  # a constant
)


@given(series=st.lists(SERIES, min_size=1, max_size=5), season=st.integers(1, 30), test=st.integers(0, 12))
def test_the_seasonal_error_of_a_series_is_that_of_its_definition(
    tmp_path_factory: pytest.TempPathFactory, series: list[Rows], season: int, test: int
) -> None:
    store = make(tmp_path_factory.mktemp("r"), series, **SMALL_GRID)
    if test > max(max(own) - min(own) + 1 for own in series):
        with pytest.raises(UsageError, match=f"split of {test} steps; expected at most"):
            errors_of(store, Split(over="series", sizes=(-1, 0, test)), season)
        return
    kept = [{t: v for t, v in own.items() if t <= max(own) - test} for own in series]
    for power in (1, 2):
        expected = [seasonal_error(own, season, power) for own in kept]
        found = errors_of(store, Split(over="series", sizes=(-1, 0, test)), season, power)
        assert expected == pytest.approx(found, rel=1e-12, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("freq", "unit"), [("MS", "M"), ("1D", "D"), ("rows", "M")])
def test_a_season_is_counted_in_steps_of_the_store_whatever_their_length(
    tmp_path: Path, freq: str, unit: Literal["M", "D"]
) -> None:
    values = np.random.default_rng(0).normal(0, 5, 40).round(2)
    dates = (np.datetime64("2001-01", unit) + np.arange(40)).astype("datetime64[D]")
    rows = [["s", date, value] for date, value in zip(dates, values, strict=True)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t", freq=freq)
    expected = float(np.abs(values[12:36] - values[:24]).mean())
    assert errors_of(open_store(tmp_path / "s.zarr"), LAST, 12) == pytest.approx([expected])


@pytest.mark.parametrize("value", [np.inf, 1e200])
def test_a_training_value_that_is_infinite_or_whose_square_is_has_no_seasonal_error(
    tmp_path: Path, value: float
) -> None:
    store = make(tmp_path, [{t: value if t == 3 else float(t) for t in range(30)}], dtype="float64")
    with pytest.raises(NotFiniteError, match="channel 'v' in series s0 is not finite"):
        errors_of(store, LAST, 2)


@given(
    sizes=st.tuples(st.just(-1), st.integers(0, 9), st.integers(1, 9)),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6).filter(lambda n: max(n) >= 18),
)
@settings(max_examples=15)
def test_the_last_steps_of_each_series_are_test_those_before_val_and_the_rest_train(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int, int], lengths: list[int]
) -> None:
    store = make(
        tmp_path_factory.mktemp("s"), [dict.fromkeys(range(5 * n, 5 * n + m), 1.0) for n, m in enumerate(lengths)]
    )
    _, n_val, n_test = sizes
    for number, name in enumerate(NAMES):
        start, stop = target_rows(store, Split(over="series", sizes=sizes), name)
        expected = [
            (
                (0, max(n - n_test - n_val, 0)),
                (max(n - n_test - n_val, 0), max(n - n_test, 0)),
                (max(n - n_test, 0), n),
            )[number]
            for n in lengths
        ]
        begins = store.index.row_start[:-1]
        assert [b - a for a, b in expected] == (stop - start).tolist()
        assert [a for a, b in expected if b > a] == (start - begins)[stop > start].tolist()


def test_the_last_steps_of_the_store_are_one_border_for_all_series(tmp_path: Path) -> None:
    store = make(tmp_path, [dict.fromkeys(range(20), 1.0), dict.fromkeys(range(5, 25), 1.0)])
    ranges = target_rows(store, Split(sizes=(-1, 2, 6)), "test")
    assert tuple(bounds.tolist() for bounds in ranges) == ([19, 34], [20, 40])


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": (-1, 0.1, 0.2)},
        {"sizes": (-2, 0, 48)},
        {"sizes": (10, -1, 48)},
        {"sizes": (-1, -1, 48)},
        {"sizes": (-1, 0, float("nan"))},
        {"by": "both", "series_sizes": (-1, 0, 2)},
        {"by": "series", "sizes": (-1, 0, 2)},
    ],
)
def test_sizes_that_leave_open_what_the_rest_is_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected (numbers, no negative ones|fractions of the series)"):
        Split(**options)


def test_irregular_times_have_no_last_steps(tmp_path: Path) -> None:
    rows = [["s", time, 1.0] for time in ("2001-01-01", "2001-01-02", "2001-01-05", "2001-01-11", "2001-01-12T05")]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert store.time.rule.kind == "irregular"
    with pytest.raises(UsageError, match="fractions or dates, since times are irregular"):
        target_rows(store, LAST, "test")


# Metrics -------------------------------------------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(st.floats(-1e6, 1e6) | st.just(0.0), st.floats(-1e6, 1e6) | st.just(0.0)), min_size=1)


@given(PAIRS)
def test_smape_is_that_of_the_m4_competition(pairs: list[tuple[float, float]]) -> None:
    expected = np.mean([200 * (abs(y - f) / (abs(y) + abs(f))) if y or f else 0.0 for y, f in pairs])
    errors, values = MaskedErrors(1, 1), torch.tensor(pairs, dtype=torch.float64)
    errors.update(values[:, 1:, None], values[:, :1, None], torch.ones(len(pairs), 1, 1, dtype=torch.bool))
    assert float(expected) == pytest.approx(float(errors.compute()["all"]["smape"]), rel=1e-12)


@given(seed=st.integers(0, 2**31), size=st.integers(1, 50), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_mase_is_the_mean_of_scaled_errors_however_batched(seed: int, size: int, share: float) -> None:
    random = np.random.default_rng(seed)
    predicted, observed = random.normal(0, 9, (2, 50, 3, 2))
    mask, series = random.random((50, 3, 2)) < share, random.integers(0, 4, 50)
    scale = random.choice([0.0, np.nan, 0.5, 20.0], (4, 2))
    scaled = np.abs(predicted - observed) / np.where(scale > 0, scale, np.nan)[series][:, None]
    scaled[~mask] = np.nan
    metric = ScaledErrors(3, 2)
    for low in range(0, 50, size):
        part = slice(low, low + size)
        blank = np.where(mask, observed, np.nan)
        metric.update(
            torch.from_numpy(predicted[part]),
            torch.from_numpy(blank[part]),
            torch.from_numpy(mask[part]),
            torch.from_numpy(scale[series][part]),
        )
    found = metric.compute()
    for group, axis in (("all", (0, 1, 2)), ("by_step", (0, 2)), ("by_target", (0, 1))):
        count = (~np.isnan(scaled)).sum(axis=axis)
        with np.errstate(invalid="ignore"):
            expected = np.nansum(scaled, axis=axis) / count
        np.testing.assert_allclose(found[group]["mase"], expected, rtol=1e-12)
    assert int((mask & np.isnan(scaled)).sum()) == int(found["all"]["mase_left_out"])


def test_rmsse_is_the_example_of_the_m5_guide() -> None:
    """Training 3, 2, 0, 4 has a mean squared step of 7; forecasts 2, 2 of 0, 4 have a mean squared error of 4."""
    metric = RootScaledErrors(1, 2, 1)
    truth, ones = torch.tensor([0.0, 4.0])[None, :, None], torch.ones(1, 2, 1, dtype=torch.bool)
    metric.update(torch.full((1, 2, 1), 2.0), truth, ones, torch.full((1, 1), 7.0), torch.zeros(1, dtype=torch.int64))
    assert float(metric.compute()["all"]["rmsse"]) == pytest.approx((4 / 7) ** 0.5)


@given(seed=st.integers(0, 2**31), size=st.integers(1, 50), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_rmsse_is_the_mean_over_series_of_the_roots_of_their_scaled_squares_however_batched(
    seed: int, size: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    predicted, observed = random.normal(0, 9, (2, 50, 3, 2))
    mask, series = random.random((50, 3, 2)) < share, random.integers(0, 4, 50)
    scale = random.choice([0.0, np.nan, 0.5, 20.0], (4, 2))
    squared = (predicted - observed) ** 2 / np.where(scale > 0, scale, np.nan)[series][:, None]
    squared[~mask] = np.nan
    metric = RootScaledErrors(5, 3, 2)  # the last series has no window
    for low in range(0, 50, size):
        part = slice(low, low + size)
        blank = np.where(mask, observed, np.nan)
        values = (torch.from_numpy(each[part]) for each in (predicted, blank, mask, scale[series], series))
        metric.update(*values)
    found = metric.compute()

    def expected(cells: Any) -> float:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            roots = [
                np.sqrt(np.nanmean(squared[series == s][:, steps, target])) for s in range(4) for target, steps in cells
            ]
            return float(np.nanmean(roots))

    both, every = (0, 1), slice(None)
    assert float(found["all"]["rmsse"]) == pytest.approx(expected([(t, every) for t in both]), nan_ok=True)
    for target in both:
        by_target = float(found["by_target"]["rmsse"][target])
        assert by_target == pytest.approx(expected([(target, every)]), nan_ok=True)
    for step in range(3):
        assert float(found["by_step"]["rmsse"][step]) == pytest.approx(expected([(t, step) for t in both]), nan_ok=True)


# A whole test run ----------------------------------------------------------------------------------------------------


def waves(lengths: Sequence[int], seed: int = 0) -> list[Rows]:
    """Series of a season of 6 steps and noise, at levels that differ by factors of 100."""
    random = np.random.default_rng(seed)
    return [
        {t: round(float((np.sin(t * np.pi / 3) + random.normal(0, 0.2)) * 100**n), 3) for t in range(length)}
        for n, length in enumerate(lengths)
    ]


def score(store: Store, folder: Path, season: int = 6, split: Split = LAST, **options: Any) -> SeasonalRepeat:
    """SeasonalRepeat(6), tested on the last 4 steps of each series."""
    data = WindowDataModule(
        store.path, 6, 4, cache=str(folder / "cache"), split=split, evaluation_stride=4, scaler="none", **options
    )
    model = SeasonalRepeat(data.shape, season=6, units="source", mase_season=season)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder
    )
    trainer.test(model, data, verbose=False)
    return model


def measures(series: Sequence[Rows], season: int = 6) -> dict[str, float]:
    """SMAPE and MASE as M4 has them, RMSSE as M5: the mean over the targets of a series, then over the series."""
    smape, mase, rmsse, n_left_out = [], [], [], 0
    for own in series:
        values = np.array([own[t] for t in sorted(own)])
        truth, guess = values[-4:], values[-10:-6]
        seen, scale = ~np.isnan(truth), seasonal_error(dict(list(own.items())[:-4]), season)
        smape.append(np.mean(200 * np.abs(truth - guess)[seen] / (np.abs(truth) + np.abs(guess))[seen]))
        if scale > 0:
            mase.append(np.mean(np.abs(truth - guess)[seen]) / scale)
            squared = seasonal_error(dict(list(own.items())[:-4]), season, 2)
            rmsse.append(np.sqrt(np.mean(((truth - guess) ** 2)[seen]) / squared))
        else:
            n_left_out += int(seen.sum())
    return {
        "test/smape": float(np.mean(smape)),
        "test/mase": float(np.mean(mase)),
        "test/rmsse": float(np.mean(rmsse)),
        "test/mase_left_out": float(n_left_out),
    }


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("options", [{}, {"residency": "device"}, {"residency": "stream", "memory_budget": "1MiB"}])
@pytest.mark.parametrize("season", [1, 6])
def test_a_test_run_measures_what_the_m4_competition_would(
    tmp_path: Path, season: int, options: dict[str, Any]
) -> None:
    series = waves([50, 31, 44])
    model = score(make(tmp_path, series, dtype="float64"), tmp_path, season, **options)
    expected = measures(series, season)
    assert expected == pytest.approx({name: model.exact[name] for name in expected}, rel=1e-6)
    assert len(model.report["by_step"]["mase"]) == 4


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_panel_is_measured_as_its_series_are(tmp_path: Path) -> None:
    series = waves([40, 40])
    store = make(tmp_path, series, dtype="float64")
    model = score(store, tmp_path, split=Split(sizes=(-1, 0, 4)), panel=Panel())
    expected = measures(series)
    assert expected == pytest.approx({name: model.exact[name] for name in expected}, rel=1e-6)


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_series_without_a_seasonal_error_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = [*waves([40, 40]), {t: 5.0 + (t >= 36) for t in range(40)}]  # constant in training
    with caplog.at_level(logging.WARNING, logger="lightning_app"):
        model = score(make(tmp_path, series, dtype="float64"), tmp_path)
    expected = measures(series)
    assert expected["test/mase_left_out"] == 4.0
    assert expected == pytest.approx({name: model.exact[name] for name in expected}, rel=1e-6)
    assert "MASE and RMSSE leave out 4 test targets" in caplog.text


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    ("season", "split"),
    [(37, LAST), (6, Split(by="series", ids={"train": ["s0"], "test": ["s1"]}))],
    ids=["a season longer than training", "series that were not trained on"],
)
def test_a_test_without_any_mase_is_refused(tmp_path: Path, season: int, split: Split) -> None:
    store = make(tmp_path, waves([40, 40]))
    with pytest.raises(UsageError, match=f"no test target with a MASE for a season of {season} rows"):
        score(store, tmp_path, season, split)


def test_a_season_of_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mase_season 0; expected 1 row or more"):
        score(make(tmp_path, waves([40])), tmp_path, season=0)


@pytest.mark.filterwarnings("ignore::Warning")
def test_the_command_writes_mase_where_a_configuration_asks_for_it(tmp_path: Path, app: Callable[..., Any]) -> None:
    series = waves([40, 52])
    store = make(tmp_path, series)
    (tmp_path / "m.yaml").write_text(
        json.dumps(
            {
                "data": {
                    "store": store.path, "lookback": 6, "horizon": 4, "evaluation_stride": 4, "scaler": "none",
                    "split": {"over": "series", "sizes": [-1, 0, 4]},
                },
                "model": {"class_path": "SeasonalRepeat", "init_args": {"season": 6, "mase_season": 6}},
            }
        )
    )  # fmt: skip
    app("test", "--config", "m.yaml", check=True)
    report = json.loads((tmp_path / "runs" / "m" / "test_metrics.json").read_text())
    assert measures(series)["test/mase"] == pytest.approx(report["test/mase"], rel=1e-3)
    assert len(report["by_step"]["mase"]) == 4
    assert "| mase |" in (tmp_path / "runs" / "m" / "summary.md").read_text()

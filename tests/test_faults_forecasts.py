"""Forecasts that were wrong without a word, or refused in words that did not help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from lightning_app import load
from lightning_app.forecaster import Forecaster
from zstore import NotFiniteError, SourceError, UsageError, append, ingest, open_store

App = Any
pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls


def daily(ids: Sequence[str] = ("a", "b"), n: int = 60, start: str = "2024-01-01") -> pd.DataFrame:
    """By id and day: `v`, and `u`, which is known in advance; both above 0."""
    random, parts = np.random.default_rng(1), []
    for id_ in ids:
        part = pd.DataFrame({"id": id_, "t": pd.date_range(start, periods=n)})
        part["v"], part["u"] = random.integers(1, 50, (2, n)).astype(float)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def ahead(ids: Sequence[str] = ("a", "b"), start: str = "2024-03-01", **columns: Any) -> pd.DataFrame:
    """Two days behind the last one, with what is known of them."""
    days = pd.date_range(start, periods=2)
    return pd.concat([pd.DataFrame({"id": id_, "t": days, **columns}) for id_ in ids], ignore_index=True)


def fitted(
    app: App, folder: Path, rows: pd.DataFrame, options: dict[str, Any] | None = None, **data: Any
) -> Forecaster:
    """A run on a store of some rows, loaded."""
    rows.to_csv(folder / "rows.csv", index=False)
    ingest(folder / "rows.csv", folder / "s.zarr", **({"id": "id", "time": "t"} | (options or {})))
    asked = {"lookback": 4, "horizon": 2, "channels": ["v", "u"], "targets": ["v"], "future": ["u"]} | data
    config = {
        "data": {"store": str(folder / "s.zarr"), "split": {"sizes": [0.6, 0.2, 0.2]}, "batch_size": 8, **asked},
        "model": {"class_path": "MLP", "init_args": {"hidden": 32}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "default_root_dir": str(folder / "run")},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    app("fit", "--config", folder / "c.yaml", "--quiet", check=True)
    return load(folder / "run")


def test_a_store_that_has_grown_is_forecast_from_its_new_end(app: App, tmp_path: Path) -> None:
    """Or one that was replaced, whether it is named by its path or is that of the run; an open one stays as it is."""
    forecaster, store = fitted(app, tmp_path, daily(), future=[]), tmp_path / "s.zarr"
    before, old = forecaster.forecast(store), open_store(store)
    daily(n=3, start="2024-03-01").to_csv(tmp_path / "later.csv", index=False)
    append(tmp_path / "later.csv", store)
    assert forecaster.forecast(store).time.min() == pd.Timestamp("2024-03-04")
    assert forecaster.forecast().time.min() == pd.Timestamp("2024-03-04")
    assert forecaster.forecast(old).equals(before)
    ingest(daily(n=40), store, id="id", time="t", overwrite=True)
    assert forecaster.forecast().time.min() == pd.Timestamp("2024-02-10")


def test_values_of_another_series_are_not_taken_for_those_of_the_only_one(app: App, tmp_path: Path) -> None:
    forecaster = fitted(app, tmp_path, daily(["a"]))
    for id_ in ("a", "b"):
        ahead([id_], u=[1.0, 2.0]).to_csv(tmp_path / f"{id_}.csv", index=False)
    with pytest.raises(UsageError, match="2 values of rows to come are not known, the first one u of a"):
        forecaster.forecast(future_values=str(tmp_path / "b.csv"))
    assert len(forecaster.forecast(future_values=str(tmp_path / "a.csv"))) == 2
    ingest(tmp_path / "a.csv", tmp_path / "nameless.zarr", time="t", leave_out=["id"])
    assert len(forecaster.forecast(future_values=str(tmp_path / "nameless.zarr"))) == 2


def test_a_value_to_come_without_a_logarithm_is_no_mean(app: App, tmp_path: Path) -> None:
    forecaster = fitted(app, tmp_path, daily(), scaler="log1p")
    ahead(u=[3.0, -5.0]).to_csv(tmp_path / "u.csv", index=False)
    with pytest.raises(UsageError, match=r"logarithm of u of a at 2024-03-02, which is -5; expected .* than -1"):
        forecaster.forecast(future_values=str(tmp_path / "u.csv"), future_gaps="fill")


def test_known_values_are_read_as_the_columns_of_the_store_were(app: App, tmp_path: Path) -> None:
    """Renamed, as words, with texts that mean missing: all without columns that are read of no row to come."""
    rows = daily().rename(columns={"v": "sold", "u": "price"}).assign(kind=np.arange(120) % 3)
    options = {"rename": {"sold": "v", "price": "u"}, "categories": ["kind"], "missing": ["sold=-9", "price=-8"]}
    channels = {"channels": ["v", "u", "kind"], "future": ["u", "kind"]}
    forecaster = fitted(app, tmp_path, rows, {"id": "id", "time": "t", **options}, **channels)
    known = ahead(price=[1.0, 2.0], kind=[0, 2])
    known.to_csv(tmp_path / "known.csv", index=False)
    found = forecaster.forecast(future_values=str(tmp_path / "known.csv"))
    table = pd.concat([rows, known.assign(sold=np.nan)], ignore_index=True)
    assert np.allclose(found.v, forecaster.forecast(table).v)
    known.replace({"price": {2.0: -8.0}}).to_csv(tmp_path / "missing.csv", index=False)
    with pytest.raises(UsageError, match=r"2 values .* u of a at 2024-03-02"):
        forecaster.forecast(future_values=str(tmp_path / "missing.csv"))


def test_times_with_zones_are_told_from_those_without(app: App, tmp_path: Path) -> None:
    """A model that reads hours or days would read others of the same rows."""
    forecaster, rows = fitted(app, tmp_path, daily(), future=[], time_features=["day_of_week"]), daily()
    for zone in ("UTC", "Asia/Tokyo"):
        with pytest.raises(UsageError, match=r"trained on times without a zone, of which it reads day_of_week; .* UTC"):
            forecaster.forecast(rows.assign(t=rows.t.dt.tz_localize(zone)))


def test_forecasts_of_times_with_zones_have_times_with_a_zone(app: App, tmp_path: Path) -> None:
    rows = daily()
    rows["t"] = rows.t.dt.tz_localize("Asia/Tokyo")
    forecaster = fitted(app, tmp_path, rows, future=[], time_features=["day_of_week"])
    found = forecaster.forecast()
    assert found.time.iloc[0] == pd.Timestamp("2024-03-01", tz="Asia/Tokyo")
    assert np.allclose(forecaster.forecast(rows).v, found.v)
    assert str(found.time.dt.tz) == "UTC"


@pytest.mark.parametrize("step", ["B", "MS", "7D", "steps", "irregular"])
def test_few_rows_in_memory_have_the_step_of_the_store(app: App, tmp_path: Path, step: str) -> None:
    """The rows of a window would not say it: those of a week look like days, one number of steps like another."""
    rows = daily(["a"])
    usual = {"steps": 3 * np.arange(60), "irregular": np.cumsum(1 + np.arange(60) % 3)}
    rows["t"] = usual[step] if step in usual else pd.date_range("2024-01-01 17:30", periods=60, freq=step)
    options = {"id": "id", "time": "t"} | ({"freq": "rows"} if step == "irregular" else {})
    forecaster = fitted(app, tmp_path, rows, options, future=[], horizon=1)
    for stop in range(10, 16):
        expected, since = tmp_path / "s.zarr", str(rows.t[stop])
        found = forecaster.forecast(rows[stop - 4 : stop + 1], predict_from=since)
        pd.testing.assert_frame_equal(found, forecaster.forecast(expected, predict_from=since), rtol=1e-6)
    if step in ("B", "MS"):
        days = rows[:20].assign(t=pd.date_range("2024-01-01 17:30", periods=20, freq="12h"))
        with pytest.raises(UsageError, match="beside the step of the run's store"):
            forecaster.forecast(days)


@pytest.mark.parametrize("ids", ["a", "abcd"])
def test_a_panel_of_fewer_or_more_series_is_forecast_as_those_it_was_fitted_on(
    app: App, tmp_path: Path, ids: str
) -> None:
    forecaster, rows = fitted(app, tmp_path, daily(["a", "b"]), future=[], panel={}), daily(["a", "b"])
    expected = forecaster.forecast()
    table = pd.concat([rows, rows.assign(id=rows.id.map({"a": "c", "b": "d"}))], ignore_index=True)
    found = forecaster.forecast(table[table.id.isin(list(ids))])
    assert found.id.unique().tolist() == list(ids)
    both = found[found.id.isin(["a", "b"])]
    assert np.allclose(both.v, expected[expected.id.isin(list(ids))].v, rtol=1e-5)
    assert forecaster.forecast().equals(expected)


def test_series_of_a_panel_that_report_late_are_told(
    app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forecaster = fitted(app, tmp_path, daily(["a", "b", "c"])[:-1], future=[], panel={})
    caplog.clear()
    forecaster.forecast()
    assert "1 series have no value at 2024-02-29, and are forecast without it: c" in caplog.text


def test_an_origin_behind_the_last_known_row_is_told(
    app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forecaster = fitted(app, tmp_path, pd.concat([daily(), ahead(u=3.0)]), future=["u"])
    caplog.clear()
    forecaster.forecast(predict_from="2024-03-02", future_gaps="fill")
    assert "2 series have no value at 2024-03-01, and are forecast without it: a, b" in caplog.text
    caplog.clear()
    forecaster.forecast(predict_from="2024-03-01")
    assert "without it" not in caplog.text


def test_a_forecast_of_no_series_is_refused(app: App, tmp_path: Path) -> None:
    forecaster = fitted(app, tmp_path, daily(), future=[])
    with pytest.raises(UsageError, match="forecast of no series"):
        forecaster.forecast(ids=[])


def test_known_values_of_a_local_clock_are_read_in_the_zone_of_the_store(app: App, tmp_path: Path) -> None:
    """Of text, if the store was made of such a clock, too; what cannot be read so is refused with the way out."""
    rows = daily()
    rows["t"] = [*pd.date_range(end="2024-06-30 22:00", periods=60, freq="h")] * 2
    forecaster = fitted(app, tmp_path, rows, {"id": "id", "time": "t", "timezone": "Europe/Berlin"})
    known = ahead(u=[7.0, 9.0])
    known["t"] = [*pd.date_range("2024-06-30 23:00", periods=2, freq="h")] * 2
    with_offsets = known.assign(t=known.t.dt.tz_localize("Europe/Berlin"))
    with_offsets.to_csv(tmp_path / "offsets.csv", index=False)
    expected = forecaster.forecast(future_values=str(tmp_path / "offsets.csv"))
    assert expected.time.iloc[0] == pd.Timestamp("2024-06-30 21:00", tz="UTC")
    known.to_csv(tmp_path / "clock.csv", index=False)
    found = forecaster.forecast(future_values=str(tmp_path / "clock.csv"))
    pd.testing.assert_frame_equal(found, expected)
    twice = known.iloc[[0, 0]].assign(t=pd.Timestamp("2024-10-27 02:30"), u=[1.0, 2.0])
    pd.concat([known, twice]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(
        SourceError, match=r"which Europe/Berlin has twice; expected .* with an offset from UTC, as 02:30"
    ):
        forecaster.forecast(future_values=str(tmp_path / "twice.csv"))
    known.to_parquet(tmp_path / "clock.parquet", index=False)
    told = r"times have no zone; expected times in UTC .* CSV of the clocks of Europe/Berlin"
    with pytest.raises(UsageError, match=told):
        forecaster.forecast(future_values=str(tmp_path / "clock.parquet"))
    with_offsets.to_parquet(tmp_path / "offsets.parquet", index=False)
    pd.testing.assert_frame_equal(forecaster.forecast(future_values=str(tmp_path / "offsets.parquet")), expected)


def test_known_values_with_offsets_are_refused_for_a_store_without_a_zone(app: App, tmp_path: Path) -> None:
    forecaster = fitted(app, tmp_path, daily())
    known = ahead(u=[7.0, 9.0])
    known.assign(t=known.t.dt.tz_localize("UTC")).to_csv(tmp_path / "known.csv", index=False)
    with pytest.raises(UsageError, match="times have offsets from UTC; expected times without, such as 2024-01-01"):
        forecaster.forecast(future_values=str(tmp_path / "known.csv"))


def test_a_series_without_any_value_of_its_target_is_told(
    app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another sensor of it still reports, so it is forecast: from nothing that was ever measured of the target."""
    rows = daily()
    rows.loc[(rows.id == "b") & (rows.t > "2024-02-20"), "v"] = np.nan
    forecaster = fitted(app, tmp_path, rows, future=[])
    caplog.clear()
    forecaster.forecast()
    assert "1 series have no value of a target in the rows that the model reads, and are forecast without any: b" in (
        caplog.messages
    )
    caplog.clear()
    forecaster.forecast(ids=["a"])
    forecaster.forecast(daily())
    assert not any("no value of a target" in message for message in caplog.messages)


def test_a_table_whose_times_are_timestamps_needs_no_format_of_the_source(app: App, tmp_path: Path) -> None:
    """The store was made of text such as 31.12.2024; who has parsed it since has the same rows."""
    rows, form = daily(), "%d.%m.%Y"
    text = rows.assign(t=rows.t.dt.strftime(form))
    forecaster = fitted(app, tmp_path, text, {"id": "id", "time": "t", "time_format": form}, future=[])
    expected = forecaster.forecast()
    for table in (text, rows, pa.table(rows)):
        pd.testing.assert_frame_equal(forecaster.forecast(table), expected)


def test_a_forecast_that_is_not_finite_is_refused_in_python_too(app: App, tmp_path: Path) -> None:
    forecaster = fitted(app, tmp_path, daily(), future=[])
    for weights in forecaster.model.parameters():
        weights.data.fill_(np.nan)
    with pytest.raises(NotFiniteError, match="a forecast that is not finite"):
        forecaster.forecast()


def test_targets_called_as_columns_of_the_table_do_not_replace_these(app: App, tmp_path: Path) -> None:
    """A count of steps may be called step, and how long something took time."""
    rows = daily().rename(columns={"v": "step", "u": "time"})
    names: dict[str, Any] = {"channels": ["step", "time"], "targets": ["step", "time"], "future": []}
    found = fitted(app, tmp_path, rows, **names).forecast()
    assert list(found.columns) == ["id", "time", "step", "step_", "time_"]
    assert found.step.tolist() == [1, 2] * 2
    assert found.time.tolist() == [*pd.date_range("2024-03-01", periods=2)] * 2

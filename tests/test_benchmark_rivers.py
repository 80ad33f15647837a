"""The suite rivers on simulated catchments: its windows are the rows of the raw files, and both starts are measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks import our_rivers, river_data, rivers


def test_windows_of_the_suite_are_rows_of_the_raw_files(tmp_path: Path) -> None:
    raw = river_data.raw_files(tmp_path, None)
    n_windows = our_rivers.facts(raw, tmp_path)["n_windows"]
    first, stop = (pd.Timestamp(date) for date in river_data.SIMULATED[:2])
    expected, files = 0, {}
    for path in sorted(raw.glob("timeseries/csv/camels/*.csv")):
        days = files[path.stem] = pd.read_csv(path, parse_dates=["date"]).set_index("date")
        flow = days.loc[first : stop - pd.Timedelta(days=1), "q_mm"]
        expected += int(flow.notna().sum())  # a year of rows lies before each
    assert n_windows == expected
    with np.load(tmp_path / "batch.npz") as batch:
        for x, y, gauge, date in zip(*(batch[name] for name in ("x", "y", "gauge", "date")), strict=True):
            days = files[gauge].loc[: pd.Timestamp(date)].iloc[-river_data.LOOKBACK :]
            np.testing.assert_allclose(x, days[river_data.CHANNELS], rtol=1e-4, atol=1e-3)
            assert y == pytest.approx(days["q_mm"].iloc[-1], rel=1e-5)


@pytest.mark.long
def test_the_suite_measures_both_starts_and_scores(tmp_path: Path) -> None:
    found, scores = rivers.measured(tmp_path, None, 1, 5, 5)
    assert [found[name][0]["n_steps"] for name in ("first", "second")] == [1, 5]
    assert found["second"][0]["first_cpu_s"] > found["second"][0]["imports_cpu_s"] > 0
    assert np.isfinite(scores["this"]["nse_median"])
    printed = rivers.report(found, scores, False)
    assert "| this, first start |" in printed
    assert "after 5 steps." in printed

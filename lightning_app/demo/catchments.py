r"""Simulated rainfall-runoff of catchments: daily weather, snow, soil, two reservoirs, and an imperfect gauge.

Every catchment is a small conceptual model after HBV (Bergström 1976) with its own parameters, of which the
static attributes show only noisy traces:

- rain is a two-state Markov chain with gamma amounts; temperature a sine of the year with AR(1) weather;
- potential evaporation grows with temperature; precipitation below 0 degrees C is stored as snow and melts
  by ``3 mm / (degree day)``;
- of the water that reaches the soil, the share ``(S / S_max)^beta`` runs on; the rest evaporates in time;
- a share `fast` of what runs on drains at rate `k_fast`, the rest at `k_slow`.

The gauge then measures the flow with 5 % noise, rounds to 0.01 mm, fails on single days and for weeks, and
some catchments have days with no row at all.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

START = np.datetime64("2001-01-01", "D")
LAND = ("bare rock", "crops", "forest", "grass")


@dataclass(frozen=True)
class Catchments:
    """Simulated catchments.

    Parameters
    ----------
    ids
        (catchment,) eight digits, with leading zeros.
    dates
        (day,) datetime64[D].
    rain, temperature, evaporation
        (catchment, day) mm/day, degrees C, mm/day.
    flow
        (catchment, day) what the gauge measured, mm/day; NaN where it failed.
    true_flow
        (catchment, day) what really flowed.
    recorded
        (catchment, day) whether there is a row at all.
    attributes
        Column name to (catchment,) values.
    """

    ids: list[str]
    dates: NDArray[np.datetime64]
    rain: Float64
    temperature: Float64
    evaporation: Float64
    flow: Float64
    true_flow: Float64
    recorded: NDArray[np.bool_]
    attributes: dict[str, list[str]]


def simulate(n_catchments: int = 40, n_years: int = 8, seed: int = 20_010_101) -> Catchments:
    """Simulate catchments; the same arguments give the same catchments."""
    random = np.random.default_rng(seed)
    dates = np.arange(START, START + np.timedelta64(round(365.25 * n_years), "D"))
    shape = (n_catchments, len(dates))
    season = np.sin(2 * np.pi * ((dates - dates.astype("M8[Y]")).astype(int) - 110) / 365.25)

    elevation = random.uniform(50, 1800, n_catchments)
    wet = random.uniform(0.22, 0.5, n_catchments)  # chance that a dry day is followed by rain
    depth = random.gamma(2.0, 4.0, n_catchments) + 3  # mean rain of a wet day, mm
    soil = random.uniform(80, 400, n_catchments)  # S_max, mm
    beta = random.uniform(1.2, 4.0, n_catchments)
    fast = random.uniform(0.3, 0.9, n_catchments)
    k_fast, k_slow = random.uniform(0.2, 0.6, n_catchments), random.uniform(0.005, 0.04, n_catchments)

    rain = _rain(random, wet, depth, season)
    weather = _autoregressive(random, shape, 0.8, 2.2)
    temperature = (12 - elevation / 160)[:, None] + 9.5 * season + weather
    evaporation = np.maximum(0.0, 0.16 * (temperature + 5)) * (1 + 0.25 * season)
    rain, evaporation = np.round(rain, 1), np.round(evaporation, 2)
    temperature = np.round(temperature, 1)
    true_flow = _runoff(rain, temperature, evaporation, soil, beta, fast, k_fast, k_slow)
    flow = np.round(true_flow * np.exp(random.normal(0, 0.05, shape)), 2)
    flow[random.random(shape) < 0.01] = np.nan
    for catchment in random.choice(n_catchments, n_catchments // 2, replace=False):
        first = random.integers(0, shape[1] - 60)
        flow[catchment, first : first + random.integers(14, 60)] = np.nan
    recorded = np.ones(shape, bool)
    for catchment in random.choice(n_catchments, n_catchments // 5, replace=False):
        first = random.integers(0, shape[1] - 30)
        recorded[catchment, first : first + random.integers(1, 30)] = False

    land = np.clip((fast * 4 + random.normal(0, 0.5, n_catchments)).astype(int), 0, 3)
    attributes = {
        "elevation_m": [f"{value:.0f}" for value in elevation],
        "soil_mm": [f"{value:.0f}" for value in soil * np.exp(random.normal(0, 0.1, n_catchments))],
        "mean_rain_mm": [f"{value:.2f}" for value in rain.mean(axis=1)],
        "slope": [f"{value:.3f}" for value in k_fast * np.exp(random.normal(0, 0.1, n_catchments))],
        "baseflow": [f"{value:.3f}" for value in (1 - fast) * np.exp(random.normal(0, 0.1, n_catchments))],
        "land": [LAND[3 - code] for code in land],
    }
    ids = [f"{number:08d}" for number in sorted(random.choice(10**7, n_catchments, replace=False))]
    return Catchments(ids, dates, rain, temperature, evaporation, flow, true_flow, recorded, attributes)


def write(catchments: Catchments, folder: Path) -> tuple[Path, Path]:
    """Write ``catchments.csv`` (one row per day and catchment, in time order) and ``attributes.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, attributes = folder / "catchments.csv", folder / "attributes.csv"
    with rows.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["gauge_id", "date", "rain_mm", "temperature_c", "evaporation_mm", "flow_mm"])
        for day, date in enumerate(catchments.dates):
            for number, id_ in enumerate(catchments.ids):
                if catchments.recorded[number, day]:
                    flow = catchments.flow[number, day]
                    writer.writerow(
                        [
                            id_,
                            date,
                            f"{catchments.rain[number, day]:.1f}",
                            f"{catchments.temperature[number, day]:.1f}",
                            f"{catchments.evaporation[number, day]:.2f}",
                            "" if np.isnan(flow) else f"{flow:.2f}",
                        ]
                    )
    with attributes.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["gauge_id", *catchments.attributes])
        writer.writerows(zip(catchments.ids, *catchments.attributes.values(), strict=True))
    return rows, attributes


def _rain(random: np.random.Generator, wet: Float64, depth: Float64, season: Float64) -> Float64:
    shape = (len(wet), len(season))
    chance, raining = random.random(shape), np.zeros(shape, bool)
    for day in range(1, shape[1]):
        likely = wet * (1 - 0.3 * season[day]) + 0.3 * raining[:, day - 1]
        raining[:, day] = chance[:, day] < likely
    return np.where(raining, random.gamma(0.8, 1.25, shape) * depth[:, None] / 1.6, 0.0)


def _autoregressive(random: np.random.Generator, shape: tuple[int, int], memory: float, std: float) -> Float64:
    noise = random.normal(0, std * np.sqrt(1 - memory**2), shape)
    for day in range(1, shape[1]):
        noise[:, day] += memory * noise[:, day - 1]
    return noise


def _runoff(
    rain: Float64,
    temperature: Float64,
    evaporation: Float64,
    soil: Float64,
    beta: Float64,
    fast: Float64,
    k_fast: Float64,
    k_slow: Float64,
) -> Float64:
    snow, water = np.zeros(len(soil)), soil * 0.5
    quick, slow = np.zeros(len(soil)), np.full(len(soil), 10.0)
    flow = np.empty_like(rain)
    for day in range(rain.shape[1]):
        cold = temperature[:, day] < 0
        melt = np.minimum(snow, 3.0 * np.maximum(temperature[:, day], 0))
        snow += np.where(cold, rain[:, day], 0.0) - melt
        arriving = np.where(cold, 0.0, rain[:, day]) + melt
        running = np.minimum(arriving, arriving * (water / soil) ** beta)
        water += arriving - running
        running += np.maximum(water - soil, 0)
        water = np.minimum(water, soil)
        water -= np.minimum(water, evaporation[:, day] * np.minimum(1.0, water / (0.7 * soil)))
        quick, slow = quick + fast * running, slow + (1 - fast) * running
        flow[:, day] = k_fast * quick + k_slow * slow
        quick, slow = quick * (1 - k_fast), slow * (1 - k_slow)
    return flow

"""Which public data sets there are: addresses, sizes, digests, licences."""

from __future__ import annotations

from importlib.resources import files

from zstore.published.files import PublicDataset, RemoteFile, RemoteTree
from zstore.published.tables import table_of_adrenal, table_of_pusht

_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_TGCN = "https://raw.githubusercontent.com/lehaifeng/T-GCN/master/data"
_DCRNN = "https://raw.githubusercontent.com/liyaguang/DCRNN/master/data/sensor_graph"
_MYO = (
    "https://raw.githubusercontent.com/aljazfrancic/myo-readings-dataset/"
    "f666247eb63b3656c3782b0d3c55f5c8a09343b1/_readings_right_hand"
)


def _ett(name: str, every: str, n_rows: int, sha256: str, n_bytes: int) -> PublicDataset:
    return PublicDataset(
        f"electricity transformer temperature and loads, {n_rows:,} rows, {every}",
        "CC BY-ND 4.0",
        "Zhou et al. 2021, Informer (AAAI)",
        (RemoteFile(f"{_ETT}/{name}.csv", sha256, n_bytes),),
        f"zstore ingest {{folder}}/{name}.csv {name.lower()}.zarr --time date",
    )


def _myo() -> tuple[RemoteFile, ...]:
    """Three sessions of three persons, eight files each: lines of ``digest n_bytes session/gesture.txt``."""
    lines = files("zstore.published").joinpath("myo_gestures.sha256").read_text(encoding="ascii").splitlines()
    found = []
    for sha256, n_bytes, path in (line.split() for line in lines):
        session = path.partition("/")[0]
        found.append(RemoteFile(f"{_MYO}/{path}", sha256, int(n_bytes), f"emg_myo/{session}"))
    return tuple(found)


DATASETS = {
    "etth1": _ett(
        "ETTh1", "hourly", 17_420, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066", 2_589_657
    ),
    "etth2": _ett(
        "ETTh2", "hourly", 17_420, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b", 2_417_960
    ),
    "ettm1": _ett(
        "ETTm1",
        "quarter-hourly",
        69_680,
        "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
        10_360_719,
    ),
    "ettm2": _ett(
        "ETTm2", "quarter-hourly", 69_680, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd", 9_677_236
    ),
    "metr_la_week": PublicDataset(
        "METR-LA: speeds of 207 sensors in a week, 2,016 steps of five minutes, and where the sensors are",
        "MIT",
        "Li et al. 2018, DCRNN (ICLR); the week is that of Zhao et al. 2019, T-GCN",
        (
            RemoteFile(
                f"{_TGCN}/los_speed.csv",
                "7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
                3_402_125,
            ),
            RemoteFile(
                f"{_DCRNN}/graph_sensor_locations.csv",
                "eb8ea96e07358b45d0e4ba3b89c2673fa20c54af50150249e627389e749ade6f",
                6_341,
            ),
        ),
        "zstore ingest {folder}/los_speed.csv metr_la.zarr --layout wide --start 2012-03-01 --freq 5min "
        "--value-name speed --static {folder}/graph_sensor_locations.csv",
    ),
    "adrenal": PublicDataset(
        "AdrenalMNIST3D: 1,584 adrenal glands as shapes of 64^3 voxels, normal or enlarged, in official splits",
        "CC BY 4.0",
        "Yang et al. 2023, MedMNIST v2 (Scientific Data)",
        (
            RemoteFile(
                "https://zenodo.org/records/10519652/files/adrenalmnist3d_64.npz",
                "124a53ea2c66c8ac1985a4c98ea6f34d1ab35bdab1dc50947f80d4a87e54057d",
                1_880_591,
                "adrenal",
            ),
        ),
        "zstore ingest {folder}/adrenal/adrenal.csv adrenal.zarr --id split,study --freq 1 --channels label "
        "--file volume=archive --file-position volume=position --file-root {folder}/adrenal",
        table_of_adrenal,
    ),
    "emg_myo": PublicDataset(
        "Myo armband: surface EMG of eight electrodes and a gesture a row, three sessions of three persons",
        "MIT",
        "Francic, myo-readings-dataset",
        _myo(),
        "zstore ingest '{folder}/emg_myo/*/*.txt' emg_myo.zarr --no-header "
        "--names emg.0,emg.1,emg.2,emg.3,emg.4,emg.5,emg.6,emg.7,label "
        "--id-from-path '([^/]+/[^/]+)[.]txt$' --start 2000-01-01 --freq 5ms",
    ),
    "pusht": PublicDataset(
        "Push-T: 206 demonstrations of pushing a T to its place, 25,650 steps with an image of 96 x 96",
        "MIT",
        "Chi et al. 2023, Diffusion Policy (RSS)",
        (
            RemoteTree(
                "https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip",
                "pusht/pusht_cchi_v7_replay.zarr",
                "58865f0d8d874bcccd9d1a959fc78401bea64e7a0591501105c4d9c28122afc8",
                31_010_783,
                819,
            ),
        ),
        "zstore ingest {folder}/pusht/pusht.parquet pusht.zarr --id episode --time step "
        "--channels state,keypoint,action --file image=frames --file-position image=frame --file-root {folder}/pusht",
        table_of_pusht,
    ),
}
"""By name; names come from here alone, never from data."""

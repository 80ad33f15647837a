"""What only Unix has is not needed: stores, models, names and locks on other operating systems."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zstore
from zstore import ConflictError
from zstore.format.layout import safe_names
from zstore.storage.urls import open_storage
from zstore.writing import lock

HIDDEN = """
import sys, os, signal, warnings, mmap
warnings.simplefilter("ignore")
import pyarrow.csv, pyarrow.parquet, dask.threaded, psutil, rich.progress  # these know other systems
if "fit" in sys.argv:
    import torch, pytorch_lightning.cli, tensorboard, torchmetrics, zarr
warnings.simplefilter("default")
warnings.filterwarnings("ignore", message="only soft file lock|flock not supported")
for name in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
    del sys.modules[name]  # it looks for fcntl when it is imported
for name in ("fcntl", "resource", "pwd", "grp", "termios", "syslog"):
    sys.modules[name] = None
gone = "sched_getaffinity posix_fallocate posix_fadvise pread preadv pwrite pwritev fork O_NOFOLLOW O_DIRECTORY "
gone += "O_CLOEXEC O_NONBLOCK getuid geteuid fdatasync fchmod mkfifo copy_file_range register_at_fork"
for name in gone.split():
    if hasattr(os, name):
        delattr(os, name)
if "fit" not in sys.argv:  # Lightning asks for the name of the system there
    del signal.SIGKILL, signal.SIGHUP
os.supports_dir_fd = set()
import zstore, zstore.storage.portable
zstore.storage.portable.sys = type("Other", (), {"platform": "other"})
folder = sys.argv[1]
with open(f"{folder}/a.csv", "w", encoding="utf-8") as file:
    file.write("id,t,v\\n" + "".join(f"{s},2001-01-{d:02d} {h:02d}:00:00,{s * h % 7 / 4}\\n"
                                    for s in range(2) for d in range(1, 9) for h in range(24)))
with open(f"{folder}/b.csv", "w", encoding="utf-8") as file:
    file.write("id,t,v\\n" + "".join(f"0,2001-01-09 {h:02d}:00:00,{h}\\n" for h in range(24)) + "0,never,1\\n")
path = f"{folder}/s.zarr"
for overwrite in (False, True):
    zstore.ingest(f"{folder}/a.csv", path, id="id", time="t", overwrite=overwrite)
zstore.append(f"{folder}/b.csv", path, on_bad_row="quarantine", max_bad_rows=1)
store = zstore.open_store(path)
from zstore.writing.lock import locked
from pathlib import Path
with locked(Path(path)):
    try:
        zstore.append(f"{folder}/a.csv", path, force=True)
    except zstore.ConflictError:
        print("refused")
print(store.n_rows, zstore.verify(store).faults, len(store.windows(24, 2)), flush=True)
if "die" in sys.argv:
    with locked(Path(path)):
        os._exit(9)
if "fit" in sys.argv:
    from lightning_app.cli import main
    words = ["--data.store", path, "--data.lookback", "4", "--data.horizon", "2", "--model", "NLinear", "--quiet"]
    words += ["--trainer.max_epochs", "1", "--trainer.default_root_dir", f"{folder}/run"]
    words += ["--data.split.sizes", "[0.5, 0.2, 0.3]"]
    codes = [main(["fit", *words]), main(["test", *words]), main(["predict", *words])]
    print(codes, os.path.exists(f"{folder}/run/predictions.zarr/zarr.json"))
"""


def run_elsewhere(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Write and read a store with what only Unix has hidden; with ``fit`` train too, with ``die`` die as a writer."""
    command = [sys.executable, "-c", HIDDEN, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_stores_are_written_and_read_without_what_only_unix_has(tmp_path: Path) -> None:
    for _ in range(2):  # a writer that was killed leaves no lock
        done = run_elsewhere(tmp_path, "die")
        assert (done.returncode, done.stdout) == (9, "refused\n408 () 358\n"), done.stderr
        shutil.rmtree(tmp_path / "s.zarr")


@pytest.mark.long
def test_a_model_is_fitted_tested_and_predicts_without_what_only_unix_has(tmp_path: Path) -> None:
    done = run_elsewhere(tmp_path, "fit")
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] True", done.stdout + done.stderr


def test_names_of_variables_are_folders_on_every_file_system() -> None:
    assert safe_names(["aux", "AUX.csv", "flow.", "a", "A", "con", "com7.x"]) == [
        "v_aux",
        "AUX_csv",
        "flow",
        "a",
        "A_2",
        "v_con",
        "com7_x",
    ]


def test_a_drive_letter_is_no_url(tmp_path: Path) -> None:
    for path in ("C:/data/x.zarr", "C:\\data\\x.zarr", "c://data/x.zarr"):
        assert not isinstance(open_storage(path), str)
    with pytest.raises(zstore.UsageError, match="URL 'ftp://a/b'"):
        open_storage("ftp://a/b")


def test_a_file_lock_refuses_a_second_writer_at_once_and_is_free_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "s.zarr")
    for _ in range(2):
        with lock.locked(tmp_path / "s.zarr"):
            for name in ("s.zarr", "link.zarr"):
                with pytest.raises(ConflictError, match="another process is writing"), lock.locked(tmp_path / name):
                    pass
    with pytest.raises(ConflictError), lock.locked(tmp_path / "gone.zarr"):
        pass

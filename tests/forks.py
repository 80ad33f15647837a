"""The project's commands in processes of their own that need not import it: forks of one that has.

A start of ``python -m lightning_app`` spends seconds on imports, and the tests start it hundreds of times. Here
``python forks.py serve FOLDER`` imports once, and ``FOLDER/python`` asks it for a fork for ``-c CODE ARGUMENTS`` and
for ``-m MODULE ARGUMENTS`` where MODULE is of the project. The command has the folder, the environment and the standard
files of its caller, who ends as the command does, and with whom it ends. Its `sys.executable` is ``FOLDER/python``, so
what it starts is forked as well.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serving() -> Iterator[str]:
    """Serve forks; the path of the Python that asks for them. Beside it is ``zstore``."""
    import shlex
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory(prefix="forks") as folder:  # short: the path of a socket has at most 100 bytes
        ask = shlex.join([sys.executable, "-S", "-I", __file__, "run", f"{folder}/socket"])
        plain = shlex.quote(sys.executable)
        scripts = {
            "python": f"""case "$1 $2" in
                "-m zstore"* | "-m lightning_app"* | "-m ipykernel"* | "-m sphinx"*) shift; exec {ask} "$@" ;;
                "-c "*) exec {ask} "$@" ;;
                *) exec {plain} "$@" ;;
            esac""",
            "zstore": f'exec {ask} zstore.cli "$@"',
        }
        for name, text in scripts.items():
            with open(f"{folder}/{name}", "w", opener=lambda path, flags: os.open(path, flags, 0o755)) as file:
                file.write(f"#!/bin/sh\n{text}\n")
        words = [sys.executable, __file__, "serve", folder]
        server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield f"{folder}/python"
        finally:
            server.communicate()  # closes its input, which ends it


def serve(folder: str) -> str:
    """Wait for commands until standard input is closed.

    Returns
    -------
    In forks only, one for each command: the module that it runs.
    """
    import gc
    import importlib
    import select
    import signal
    import warnings

    for module in ("zstore.cli", "lightning_app.cli", "torch.utils.tensorboard"):  # the last one is for logs of fits
        importlib.import_module(module)
    gc.freeze()  # what forks share is copied when it is looked through
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/socket")
    listener.listen()
    sys.executable = f"{folder}/python"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    os.write(1, b"ready\n")
    inputs: list[Any] = [listener, 0]
    while listener in select.select(inputs, [], [])[0]:
        connection, _ = listener.accept()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            pid = os.fork()  # the one other thread is pyarrow's allocator's, which minds forks
        if pid == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return start(connection)
        connection.close()
    os._exit(0)


def start(connection: socket.socket) -> str:
    """Start a command and watch it. Returns in the process of the command."""
    import json

    size = int.from_bytes(connection.recv(8), "big")
    message, files, _, _ = socket.recv_fds(connection, 1, 3)
    while len(message) < size:
        message += connection.recv(size - len(message))
    pid = os.fork()
    if pid:
        for file in (0, 1, 2, *files):
            os.close(file)
        watch(pid, connection)
    connection.close()
    return become(json.loads(message), files)


def watch(pid: int, connection: socket.socket) -> None:
    """Tell the caller how the command ended; kill it when the caller is gone."""
    import signal
    import threading

    def end_with_caller() -> None:
        connection.recv(1)
        os.kill(pid, signal.SIGKILL)

    threading.Thread(target=end_with_caller, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(str(code).encode())
    os._exit(0)


def become(command: dict[str, Any], files: list[int]) -> str:
    """Take the folder, environment, arguments and standard files of a command."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    module, *sys.argv[1:] = command["words"]
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [command["folder"], *(path for path in paths if path and path not in sys.path[1:])]
    if module == "-c":
        sys.argv[0] = "-c"
    elif not hasattr(sys.modules.get(module), "__path__"):
        sys.modules.pop(module, None)  # it runs as __main__
    return str(module)


def run_to_the_end(module: str) -> None:
    """Run a module and end as Python does, but without taking apart what was imported, which takes as long again."""
    import atexit
    import runpy
    import threading

    code: Any = 0
    try:
        if module == "-c":
            run_code(sys.argv.pop(1))
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code or 0
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_code(code: str) -> None:
    """Run what ``python -c`` is given, as the main module."""
    import types

    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))  # noqa: S102  # as python does


def ask(path: str, words: list[str]) -> int:
    """Let the server run a command; its exit code, or the number of the signal that killed it, negative."""
    import json

    command = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    message = json.dumps(command).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(len(message).to_bytes(8, "big"))
        socket.send_fds(connection, [message[:1]], [0, 1, 2])
        connection.sendall(message[1:])
        return int(connection.recv(16))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run_to_the_end(serve(sys.argv[2]))
    code = ask(sys.argv[2], sys.argv[3:])
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)

"""Processes that are killed while they write.

A server loads what is heavy once, and forks a process for each try.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# What a process does to files, as Python tells it before it is done.
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir"}


class Forks:
    """Runs ``work(*arguments)`` of a module in processes that are killed."""

    def __init__(self, module: str, *arguments: object) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forks", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.kill()
        self.server.communicate()

    def run(self, touches: int = 0) -> bool:
        """Run it once; kill it before it touches files for the n-th time.

        Returns:
            Whether it came to its end before.
        """
        self._say(touches)
        status = self._hear()
        assert status in (0, signal.SIGKILL)
        return status == 0

    def run_for(self, seconds: float) -> None:
        """Run it again and again, and kill it after so long."""
        self._say(-1)
        process = self._hear()
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        self._say(0)
        assert self._hear() == signal.SIGKILL

    def _say(self, number: int) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(f"{number}\n")
        self.server.stdin.flush()

    def _hear(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


def _serve(module: str, *arguments: str) -> None:
    work = importlib.import_module(module).work
    while line := sys.stdin.readline():
        touches = int(line)
        process = os.fork()
        if not process:
            _be_killed(work, arguments, touches)
        if touches < 0:
            print(process, flush=True)
            # It is not waited for before it is killed, so its number stays its own.
            sys.stdin.readline()
        print(_signal(os.waitpid(process, 0)[1]), flush=True)


def _signal(status: int) -> int:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _be_killed(work: Any, arguments: tuple[str, ...], touches: int) -> None:
    left = touches

    def count(event: str, _: Any) -> None:
        nonlocal left
        if event in TOUCHES:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        if touches > 0:
            sys.addaudithook(count)
        work(*arguments)
        while touches < 0:
            work(*arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve(*sys.argv[1:])

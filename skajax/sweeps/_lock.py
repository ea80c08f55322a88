"""Who writes: locks on files, which the kernel releases when their holder ends, however it ends."""

import os
from pathlib import Path

from skajax._checks import require


class Lock:
    """An exclusive lock on a file, that one process at a time can hold."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Of a file in a folder that exists; the lock makes the file, and leaves it there."""
        self.path = Path(path)
        self._file: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Whether it could be taken; with ``wait``, as soon as nobody else holds it."""
        try:
            import fcntl
        except ImportError:
            require(False, "store", "be left out on this system", "it has no locks on files")
            raise
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let others take it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "Lock":
        self.take(wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

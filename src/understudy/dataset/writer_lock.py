"""The lock of a dataset folder: one writer at a time, and none that is dead, however it died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from understudy.dataset.archive import read_bytes
from understudy.durable import is_regular, storage_errors
from understudy.errors import DatasetLocked

LOCK = "writer.lock"
_READ_AND_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class WriterLock:
    """The lock file of one dataset folder; its text only says who writes.

    Args:
        folder: the dataset.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOCK
        self._descriptor: int | None = None
        self._process = 0

    @property
    def is_held(self) -> bool:
        """Whether this very process is the writer: one that was forked from the writer is another."""
        return self._descriptor is not None and self._process == os.getpid()

    def take(self) -> None:
        """Becomes the one writer; does nothing where that is so.

        Raises:
            DatasetLocked: another process writes.
            StorageError: the disk failed, or the folder is gone.
        """
        if self.is_held:
            return
        self.release()
        with storage_errors(f"locking {self._folder}"):
            while self._descriptor is None:
                self._descriptor = self._locked()
        self._process = os.getpid()

    def release(self) -> None:
        """Lets another process write. What a fork copied is only closed: the lock is that of the other process."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self.is_held:
                os.ftruncate(self._descriptor, 0)
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also for the processes that were forked meanwhile
            os.close(self._descriptor)
        self._descriptor = None

    def owner_is_alive(self) -> bool:
        """Whether the writer that the file names seems to live."""
        if not is_regular(self._path):
            return False
        owner = read_bytes(self._path, 4096).split()
        if len(owner) != 2 or not owner[0].isdigit() or len(owner[0]) > 9:
            return False
        # A writer elsewhere (a shared folder) cannot be looked up from here; it is taken to be alive.
        return owner[1].decode("ascii", "replace") != socket.gethostname() or Path(f"/proc/{int(owner[0])}").exists()

    def _locked(self) -> int | None:
        """The descriptor of the locked file; None where the file was removed before it was locked."""
        descriptor = os.open(self._path, _READ_AND_WRITE, 0o644)
        try:
            # The kernel lets go of the lock when its process dies, however it dies.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(self._path)):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                    return descriptor
        except BlockingIOError:
            owner = os.pread(descriptor, 200, 0).decode("ascii", "replace").split()
            os.close(descriptor)
            who = f"process {owner[0]} on {owner[1]}" if len(owner) == 2 else "another process"
            raise DatasetLocked(f"{who} is writing to {self._folder}; wait for it, or end it first") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

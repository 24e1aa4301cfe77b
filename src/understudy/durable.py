"""Writing so that "saved" stays true: temp file, fsync, rename, fsync of the folder; an index line, then fsync.

The three system calls that can fail on a full or broken disk go through the functions `_os_write`, `_os_fsync` and
`_os_rename` of this module, so that a test can make the n-th of them fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from understudy.errors import StorageError

_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TEMPORARY_SUFFIX = ".tmp"
_MORE_SPACE = "free some space or use another disk, then try again"
_PERMISSION = "get the permission for it, or name another place"
_IN_THE_WAY = "move away what lies there, or name another place"
_ADVICE = {
    errno.ENOSPC: _MORE_SPACE,
    errno.EDQUOT: _MORE_SPACE,
    errno.EFBIG: _MORE_SPACE,
    errno.EIO: "the disk may be broken: use another one",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _PERMISSION,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ENAMETOOLONG: "give a shorter name",
}


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Puts `data` at `path`, whole or not at all, and returns only when a power cut could not undo it.

    Args:
        path: where the bytes go; what was there before stays until the new bytes are safe.
        data: the whole content.

    Raises:
        StorageError: the disk is full or failed; the file that was there before is untouched unless the very last
            step (making the rename durable) failed, in which case the new file is there whole.
    """
    final = Path(path)
    temporary = _beside(final)
    with storage_errors(f"saving {final.name}"):
        try:
            descriptor = os.open(temporary, _WRITE_NEW, 0o644)
            try:
                if is_regular(final):
                    os.fchmod(descriptor, stat.S_IMODE(final.stat().st_mode))  # a private file stays private
                write_all(descriptor, data)
                _os_fsync(descriptor)
            finally:
                os.close(descriptor)
            _os_rename(temporary, final)
        except BaseException:
            # Ctrl-C included: no temporary file may outlive the call that made it.
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(final.parent)


def rename_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Gives a file another name in its folder, and returns only when that is durable.

    Raises:
        StorageError: the disk failed; the file has one of the two names.
    """
    with storage_errors(f"renaming {Path(source).name} to {Path(target).name}"):
        _os_rename(Path(source), Path(target))
        sync_folder(Path(target).parent)


def append_line(path: str | os.PathLike[str], line: bytes) -> None:
    """Appends one line to an existing file and returns only when it is durable.

    Args:
        path: an existing file.
        line: the line, with or without its newline.

    Raises:
        StorageError: the disk is full or failed; what had been written of the line was cut off again where the disk
            still allowed it (a reader must therefore be able to tell a torn last line).
    """
    line = line if line.endswith(b"\n") else line + b"\n"
    with storage_errors(f"appending to {Path(path).name}"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, line)
                _os_fsync(descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                    os.fsync(descriptor)
                raise
        finally:
            os.close(descriptor)


def cut_file(path: str | os.PathLike[str], size: int) -> None:
    """Cuts a file to its first `size` bytes, durably.

    Raises:
        StorageError: the disk failed.
    """
    with storage_errors(f"mending {Path(path).name}"):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            _os_fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_file(path: str | os.PathLike[str]) -> None:
    """Removes a file, durably; does nothing where there is none.

    Raises:
        StorageError: the disk failed.
    """
    with storage_errors(f"removing {Path(path).name}"):
        Path(path).unlink(missing_ok=True)
        sync_folder(Path(path).parent)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Makes a folder and its parents, durably; does nothing where it exists.

    Raises:
        StorageError: the disk is full or failed, or something else is there.
    """
    folder = Path(path)
    with storage_errors(f"making the folder {folder.name}"):
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Makes a new folder with `files` in it, whole or not at all, and returns only when it is durable.

    Args:
        path: the folder; it must not exist, or be empty.
        files: content by name.

    Raises:
        StorageError: the disk is full or failed, or something is in the way.
    """
    final = Path(path)
    make_folder(final.parent)
    temporary = _beside(final)
    with storage_errors(f"saving {final.name}"):
        try:
            temporary.mkdir()
            for name, data in files.items():
                write_file(temporary / name, data)
            _os_rename(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(final.parent)


def prove_writable(path: str | os.PathLike[str]) -> None:
    """Makes the folder of `path` and tries whether a file could be written there, which leaves nothing behind.

    Raises:
        StorageError: it could not.
    """
    final = Path(path)
    make_folder(final.parent)
    trial = _beside(final)
    with storage_errors(f"writing {final}"):
        os.close(os.open(trial, _WRITE_NEW, 0o644))
        trial.unlink()


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data` to an open file, however many calls it takes.

    Raises:
        OSError: the disk is full or failed.
    """
    view = memoryview(data)
    while view:
        view = view[_os_write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Makes names in a folder durable (a rename is not, before this).

    Raises:
        OSError: the disk failed.
    """
    _sync_path(folder, os.O_RDONLY | os.O_DIRECTORY)


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns an operating-system error into a StorageError that says what was being done.

    Raises:
        StorageError: the block raised an OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{what} failed: {in_words(error)} (what was saved before is untouched)") from error


def in_words(error: OSError) -> str:
    """What the operating system refused, and what to do about that."""
    return f"{error.strerror or error}; {_ADVICE.get(error.errno or 0, 'name another place, then try again')}"


def is_regular(path: Path) -> bool:
    """Whether `path` is a plain file: no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _beside(final: Path) -> Path:
    """A new name for a temporary file or folder in the same folder, from where it can be renamed."""
    return final.parent / f".{final.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def _sync_path(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        _os_fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_write(descriptor: int, data: memoryview) -> int:
    return os.write(descriptor, data)


def _os_fsync(descriptor: int) -> None:
    os.fsync(descriptor)


def _os_rename(source: Path, target: Path) -> None:
    os.rename(source, target)

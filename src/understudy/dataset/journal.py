"""The journal of the episode being recorded: a crash costs at most the last half second of it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.dataset.journal_file import JOURNAL, MAGIC, frame, head_record, step_record, step_type
from understudy.dataset.store import Dataset
from understudy.durable import in_words, remove_file, storage_errors, sync_folder, write_all
from understudy.episode import Episode
from understudy.errors import StorageError
from understudy.rollout import Observer, Step

_SYNC_S = 0.25
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Journal(Observer):
    """Writes each step of a rollout to the dataset's journal, until `Dataset.append` saves the whole episode.

    Each step is handed to the operating system at once, so that a crash of this process loses nothing; every 0.25 s
    another thread makes it durable, so that a power cut loses little and the control loop does not wait for a disk.
    What a crash leaves is saved as a `partial` episode by the next writer of the dataset.

    Args:
        dataset: where the episode will go; becomes its writer at the first reset.
        seed: seed of the start, if known.
        initial_state: what puts a simulator back to the start, where the seed does not.

    Raises (while recording):
        DatasetLocked: another process writes to the dataset.
        StorageError: the disk is full or failed; what was recorded before stays in the journal.
    """

    def __init__(
        self, dataset: Dataset, *, seed: int = -1, initial_state: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self._folder = dataset.writer()
        self._seed, self._initial_state = seed, dict(initial_state or {})
        self._layout = step_type(len(dataset.spec.observations), len(dataset.spec.actions))
        self._descriptor: int | None = None
        self._sync: _Sync | None = None

    def on_start(self, env: gym.Env[Any, Any], observation: NDArray[np.float32]) -> None:
        self._stop()
        self._folder.begin()
        self._folder.recover_journal(finished_too=False)
        with storage_errors("opening the journal"):
            self._descriptor = os.open(self._folder.path / JOURNAL, _NEW_FILE, 0o644)
            sync_folder(self._folder.path)  # without its name, what is synced later would be lost with the power
        self._sync = _Sync(self._descriptor)
        head = head_record(observation, self._folder.index.next_id, self._seed, self._initial_state)
        self._write(MAGIC + head)

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        self._write(step_record(step, self._layout))

    def on_end(self, env: gym.Env[Any, Any], episode: Episode) -> None:
        self._write(frame(b"E"))
        self._stop()

    def keep(self) -> None:
        """Saves the recording so far as a partial episode: something went wrong, and what led to it is data, too.

        Also one that came to its end and that somebody interrupted before it was appended.

        Raises:
            StorageError: the disk is full or failed.
        """
        self._stop()
        self._folder.recover_journal(finished_too=True)

    def discard(self) -> None:
        """Forgets the recording, for an episode that will not be appended.

        Raises:
            StorageError: the disk failed.
        """
        self._stop()
        remove_file(self._folder.path / JOURNAL)

    def _write(self, record: bytes) -> None:
        if self._descriptor is None or self._sync is None:
            raise StorageError("the journal is closed; record with a new Journal")
        if self._sync.error is not None:
            error = self._sync.error
            self._stop()
            raise StorageError(f"making the journal durable failed: {in_words(error)}") from error
        with storage_errors("writing the journal"):
            write_all(self._descriptor, record)
        self._sync.pending.set()

    def _stop(self) -> None:
        """Ends the other thread and closes the file; the journal itself stays until the episode is saved."""
        if self._sync is not None:
            self._sync.stop()
            self._sync = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._stop()


class _Sync(threading.Thread):
    """Calls fdatasync every 0.25 s while something was written."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="journal", daemon=True)
        self._descriptor = descriptor
        self._ended = threading.Event()
        self.pending = threading.Event()
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        while not self._ended.wait(_SYNC_S):
            if self.pending.is_set():
                self.pending.clear()
                try:
                    os.fdatasync(self._descriptor)
                except OSError as error:
                    self.error = error
                    return

    def stop(self) -> None:
        self._ended.set()
        self.join()

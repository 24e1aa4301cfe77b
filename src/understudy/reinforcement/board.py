"""TensorBoard: a copy of the numbers of a run, for those who watch many. `metrics.jsonl` stays the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.errors import MissingDependency
from understudy.reinforcement.finetune import FinetuneLog


class Board:
    """Writes each log of a `finetune` to a folder that TensorBoard reads; the folder is made with the first of them.

    Args:
        folder: of the events.

    Raises:
        MissingDependency: tensorboard is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependency(
                "TensorBoard is not installed; in a clone: pip install -e '.[tensorboard]', or leave --tensorboard out"
            ) from error
        self._folder, self._made = str(folder), SummaryWriter
        self._writer: Any = None

    def show(self, log: FinetuneLog) -> None:
        """Adds the numbers of a batch, over the steps of the world."""
        if log.verdict is not None:
            return
        self._writer = self._writer or self._made(self._folder)
        for name, value in log.numbers.items():
            if value is not None:
                self._writer.add_scalar(name, value, log.step)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()

"""Asking a GPU once for what it computes at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Recording:
    """A function of tensors as the GPU was once asked to compute it, a CUDA graph; it answers in the same memory.

    A GPU does the arithmetic of a small network faster than Python can ask for it, so it is asked once for all of it.

    Args:
        function: what is computed; called a few times, which must change nothing.
        inputs: as all later ones, in shape and kind.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._device = inputs[0].device
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # one of this GPU: torch's own for recording is of the first that recorded
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # what is only done at the first calls must not be recorded
                for _ in range(3):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=aside):
                self._answer = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self._answer

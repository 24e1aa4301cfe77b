"""Messages between processes: what goes in comes out, and what is no message is refused by name."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from understudy.errors import RobotError
from understudy.robots.wire import Message


@given(
    some.integers(0, 255),
    some.integers(0, 255),
    some.integers(-(2**63), 2**63 - 1),
    some.lists(some.floats(), max_size=20),
    some.text(max_size=50),
)
def test_what_goes_in_comes_out(kind, flags, id, values, text):
    text = text.encode(errors="replace").decode()
    out = Message.unpack(Message(kind, flags, id, 1.5, -2.5, np.array(values), text).pack())
    assert out[:5] == (kind, flags, id, 1.5, -2.5)
    assert np.array_equal(out.values, np.array(values), equal_nan=True)
    assert out.text == text


@given(some.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    with contextlib.suppress(RobotError):  # nothing else may be raised
        assert Message.unpack(data).values.dtype == np.float64


def test_a_message_that_was_cut_is_refused():
    data = Message(1, values=np.ones(10)).pack()
    with pytest.raises(RobotError, match="announces 10 numbers"):
        Message.unpack(data[:60])

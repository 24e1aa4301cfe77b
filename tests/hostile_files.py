"""What the tests about hostile files share: the rows of docs/hostile_files.md, and a watch over what a reader does."""

import os
import re
import sys
from pathlib import Path

import understudy

PAGE = Path(__file__).parents[1] / "docs" / "hostile_files.md"
_SOFTWARE = (sys.prefix, sys.base_prefix, str(Path(understudy.__file__).parents[1]))
_STARTED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect")


def rows(part):
    """The table of one part of the page: what happens, by file."""
    text = PAGE.read_text().split(f"## {part}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| ([^|`-][^|]*?) \| ([^|]+?) \|", text, re.MULTILINE)[1:])


class Watch:
    """An audit hook: notes every program that is started and every file outside of `allowed` that is opened."""

    _current = None
    _hooked = False

    def __init__(self, allowed):
        self.allowed, self.trespasses = str(allowed), []

    def __enter__(self):
        if not Watch._hooked:
            Watch._hooked = True
            sys.addaudithook(Watch._hook)  # it cannot be removed again
        Watch._current = self
        return self

    def __exit__(self, *exception):
        Watch._current = None

    @staticmethod
    def _hook(event, arguments):
        watch = Watch._current
        if watch is None:
            return
        if event in _STARTED:
            watch.trespasses.append((event, arguments))
        if event == "open" and isinstance(arguments[0], str):
            path = os.path.realpath(arguments[0])
            if not path.startswith((watch.allowed, *_SOFTWARE)):
                watch.trespasses.append((event, arguments))

"""The command line. Every command is one function of the API plus printing; nothing else knows tyro or rich."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from pathlib import Path
from traceback import walk_stack
from typing import Any

import tyro

from understudy.cli.arguments import CORES
from understudy.cli.cloning import advise, train_bc
from understudy.cli.console import progress, say, tell
from understudy.cli.correcting import Rounds, dagger
from understudy.cli.data import import_, inspect, record, replay, view
from understudy.cli.exporting import export
from understudy.cli.measuring import compare, evaluate, report
from understudy.cli.parsing import parsed
from understudy.cli.robots import deploy
from understudy.cli.tuning import finetune
from understudy.durable import in_words
from understudy.errors import UnderstudyError, require_within
from understudy.recipe import LARGEST_SEED
from understudy.report.markup import one_line
from understudy.workers import MOST_WORKERS

_LEFT_OUT = ("torch", "mujoco", "matplotlib", "av", "gymnasium_robotics", "onnx")
_SOON_S = 0.01
_NOBODY_READS = 128 + signal.SIGPIPE  # what a shell says of a program that such a pipe ends
_ABOUT = "Teach a robot by example: record demonstrations, clone them, measure the policy honestly."


def demo(out: Path = Path("runs/demo"), seed: int = 0, workers: int = CORES) -> None:
    """The whole story on the bundled task: record, inspect, clone, measure, and correct it with DAgger.

    Args:
        out: folder for data, runs and report.
        seed: of the training.
        workers: processes that evaluate.
    """
    from understudy.demo import tell as tell_story

    require_within("workers", workers, 1, MOST_WORKERS)
    require_within("seed", seed, 0, LARGEST_SEED)
    started = time.monotonic()
    with progress() as bar:
        report = tell_story(out, seed=seed, workers=workers, say=say, progress=bar, watcher=Rounds(bar))
    say(f"\n{report} holds the report ({time.monotonic() - started:.0f} s); open it in a browser")


app = tyro.extras.SubcommandApp()
_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "record": record,
    "inspect": inspect,
    "import": import_,
    "view": view,
    "replay": replay,
    "train bc": train_bc,
    "dagger": dagger,
    "finetune": finetune,
    "evaluate": evaluate,
    "deploy": deploy,
    "compare": compare,
    "report": report,
    "export": export,
    "advise": advise,
}
_AFTER_CTRL_C = {
    "demo": "the same command goes on where it stopped",
    "train bc": "the same command with --resume goes on where it stopped",
    "dagger": "the same command with --resume goes on where it stopped",
    "finetune": "the same command with --resume goes on where it stopped",
    "view": "a film holds what it had shown",
}


def _bound(command: Callable[..., Any]) -> Callable[..., Any]:
    """What tyro calls with the parsed options: it keeps them, so that parsing ends before the command begins."""

    @wraps(command)
    def bind(*arguments: Any, **options: Any) -> Any:
        return partial(command, *arguments, **options)

    return bind


for _name, _command in _COMMANDS.items():
    app.command(name=_name)(_bound(_command))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        Its exit code: 0, 1 where `inspect` found errors or `deploy` left a stopped robot, 2 for a user's mistake, 130
        after Ctrl-C, 141 where nobody reads the output any more.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has: a name is no reason to fail
    if words[:2] == ["train", "bc"]:
        words[:2] = ["train bc"]  # one command of two words
    with warnings.catch_warnings(), _no_ctrl_c_lost():
        warnings.simplefilter("default", UserWarning)
        tell_once = cache(tell)
        warnings.showwarning = lambda message, *place, **where: tell_once(one_line(message))
        try:
            return int(parsed(app, words, _COMMANDS, _ABOUT)() or 0)
        except UnderstudyError as error:
            notes = [note for note in getattr(error, "__notes__", ()) if "\n" not in note]  # without tracebacks
            tell("; ".join(map(one_line, [error, *notes])))
        except BrokenPipeError:  # whoever reads the output, like `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return _NOBODY_READS
        except ModuleNotFoundError as error:  # on a computer that only runs policies, much is left out
            if error.name not in _LEFT_OUT:
                raise
            tell(f"this needs {error.name}, which is not installed here; pip install {error.name}")
        except OSError as error:  # a file that may not be read, a name that is too long
            tell(one_line(f"{error.filename or 'the operating system'}: {in_words(error)}"))
        except KeyboardInterrupt as interrupt:
            how = "" if "--dry-run" in words else _AFTER_CTRL_C.get(words[0], "")
            how = str(interrupt) or how or "what was not finished is not kept; run it again"
            tell(f"interrupted; {how}")
            return 130
    return 2


@contextmanager
def _no_ctrl_c_lost() -> Iterator[None]:
    """Raises a Ctrl-C again that came inside of a destructor or a callback, from where Python raises nothing."""
    before = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Thread(target=press).start()
        else:
            before(unraisable)

    def press() -> None:
        main = threading.main_thread().ident or 0
        while any(frame.f_code is again.__code__ for frame, _ in walk_stack(sys._current_frames()[main])):
            time.sleep(_SOON_S)  # pressed inside of that hook, it would be lost once more
        signal.pthread_kill(main, signal.SIGINT)  # which also ends a wait

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before

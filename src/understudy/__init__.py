"""Understudy: teach a robot by example.

The names below are the public face. Those that need torch are imported when they are first used, so that a robot's
computer can record and run a policy without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from understudy import sim
from understudy.agent import Agent, Command, Demonstrator, Driver, Expert, Replay
from understudy.dataset import Dataset, Journal, diagnose, import_dataset, record
from understudy.episode import Episode
from understudy.errors import UnderstudyError
from understudy.evaluate import Comparison, Evaluation, Trial, compare, episodes_needed, evaluate, wilson_interval
from understudy.execution import PolicyAgent
from understudy.inference import FeedForwardConfig, load_predictor
from understudy.observers import Video
from understudy.playback import Drift, Show, film, replay, show_live
from understudy.recipe import TrainConfig
from understudy.report import write_run_report
from understudy.rollout import Observer, Step, rollout, rollouts
from understudy.spec import Channel, Spec, spec_of
from understudy.worlds import make_env

if TYPE_CHECKING:
    from understudy.checkpoint import load, save
    from understudy.policies import Ensemble, FeedForward, Policy
    from understudy.trainer import TrainLog, train

_WITH_TORCH = {
    "load": "understudy.checkpoint",
    "save": "understudy.checkpoint",
    "Ensemble": "understudy.policies",
    "FeedForward": "understudy.policies",
    "Policy": "understudy.policies",
    "TrainLog": "understudy.trainer",
    "train": "understudy.trainer",
}

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Channel",
    "Command",
    "Comparison",
    "Dataset",
    "Demonstrator",
    "Drift",
    "Driver",
    "Ensemble",
    "Episode",
    "Evaluation",
    "Expert",
    "FeedForward",
    "FeedForwardConfig",
    "Journal",
    "Observer",
    "Policy",
    "PolicyAgent",
    "Replay",
    "Show",
    "Spec",
    "Step",
    "TrainConfig",
    "TrainLog",
    "Trial",
    "UnderstudyError",
    "Video",
    "compare",
    "diagnose",
    "episodes_needed",
    "evaluate",
    "film",
    "import_dataset",
    "load",
    "load_predictor",
    "make_env",
    "record",
    "replay",
    "rollout",
    "rollouts",
    "save",
    "show_live",
    "sim",
    "spec_of",
    "train",
    "wilson_interval",
    "write_run_report",
]


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")

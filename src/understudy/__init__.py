"""Understudy: teach a robot by example.

The names below are the public face. Those that need torch are imported when they are first used, so that a robot's
computer can record and run a policy without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from understudy import sim
from understudy.advice import Advice, Situation, advise
from understudy.agent import Agent, Command, Demonstrator, Driver, Expert, Replay
from understudy.collector import rollouts
from understudy.dataset import Dataset, Journal, diagnose, import_dataset, record
from understudy.episode import Episode
from understudy.errors import UnderstudyError
from understudy.evaluate import Comparison, Evaluation, Trial, compare, episodes_needed, evaluate, wilson_interval
from understudy.execution import PolicyAgent
from understudy.export import Export, export
from understudy.loading import load_predictor
from understudy.network_shape import FeedForwardConfig
from understudy.observers import Video
from understudy.playback import Drift, Show, film, replay, show_live
from understudy.presets import PRESETS, Preset
from understudy.recipe import DAggerConfig, FinetuneConfig, TrainConfig
from understudy.report import write_run_report
from understudy.robots import (
    Axis,
    Deployed,
    FakeConfig,
    FakeRobot,
    Limits,
    Novelty,
    Reading,
    Robot,
    RobotEnv,
    RobotSpec,
    SafetyConfig,
    SafetyGate,
    deploy,
    robot_for,
)
from understudy.robots.recording import Outcome, Take, record_on
from understudy.rollout import Observer, Step, rollout
from understudy.spec import Channel, Spec, spec_of
from understudy.worlds import make_env

if TYPE_CHECKING:
    from understudy.checkpoint import load, save
    from understudy.interactive import (
        DAggerGate,
        EnsembleGate,
        Gate,
        GatedAgent,
        HGGate,
        LazyGate,
        Round,
        SafeGate,
        ThriftyGate,
        Tick,
        dagger,
        gate_for,
        rehearse,
    )
    from understudy.policies import Ensemble, FeedForward, Policy
    from understudy.reinforcement import (
        NPG,
        PPO,
        TD3,
        DemoStarts,
        DemoTerm,
        DistanceTerm,
        FinetuneLog,
        clone_for,
        finetune,
        starts_for,
        term_for,
        update_for,
    )
    from understudy.trainer import TrainLog, train

_WITH_TORCH = {
    "DAggerGate": "understudy.interactive",
    "EnsembleGate": "understudy.interactive",
    "Gate": "understudy.interactive",
    "GatedAgent": "understudy.interactive",
    "HGGate": "understudy.interactive",
    "LazyGate": "understudy.interactive",
    "Round": "understudy.interactive",
    "SafeGate": "understudy.interactive",
    "ThriftyGate": "understudy.interactive",
    "Tick": "understudy.interactive",
    "dagger": "understudy.interactive",
    "gate_for": "understudy.interactive",
    "rehearse": "understudy.interactive",
    "NPG": "understudy.reinforcement",
    "PPO": "understudy.reinforcement",
    "TD3": "understudy.reinforcement",
    "DemoStarts": "understudy.reinforcement",
    "DemoTerm": "understudy.reinforcement",
    "DistanceTerm": "understudy.reinforcement",
    "FinetuneLog": "understudy.reinforcement",
    "clone_for": "understudy.reinforcement",
    "finetune": "understudy.reinforcement",
    "starts_for": "understudy.reinforcement",
    "term_for": "understudy.reinforcement",
    "update_for": "understudy.reinforcement",
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
    "NPG",
    "PPO",
    "PRESETS",
    "TD3",
    "Advice",
    "Agent",
    "Axis",
    "Channel",
    "Command",
    "Comparison",
    "DAggerConfig",
    "DAggerGate",
    "Dataset",
    "DemoStarts",
    "DemoTerm",
    "Demonstrator",
    "Deployed",
    "DistanceTerm",
    "Drift",
    "Driver",
    "Ensemble",
    "EnsembleGate",
    "Episode",
    "Evaluation",
    "Expert",
    "Export",
    "FakeConfig",
    "FakeRobot",
    "FeedForward",
    "FeedForwardConfig",
    "FinetuneConfig",
    "FinetuneLog",
    "Gate",
    "GatedAgent",
    "HGGate",
    "Journal",
    "LazyGate",
    "Limits",
    "Novelty",
    "Observer",
    "Outcome",
    "Policy",
    "PolicyAgent",
    "Preset",
    "Reading",
    "Replay",
    "Robot",
    "RobotEnv",
    "RobotSpec",
    "Round",
    "SafeGate",
    "SafetyConfig",
    "SafetyGate",
    "Show",
    "Situation",
    "Spec",
    "Step",
    "Take",
    "ThriftyGate",
    "Tick",
    "TrainConfig",
    "TrainLog",
    "Trial",
    "UnderstudyError",
    "Video",
    "advise",
    "clone_for",
    "compare",
    "dagger",
    "deploy",
    "diagnose",
    "episodes_needed",
    "evaluate",
    "export",
    "film",
    "finetune",
    "gate_for",
    "import_dataset",
    "load",
    "load_predictor",
    "make_env",
    "record",
    "record_on",
    "rehearse",
    "replay",
    "robot_for",
    "rollout",
    "rollouts",
    "save",
    "show_live",
    "sim",
    "spec_of",
    "starts_for",
    "term_for",
    "train",
    "update_for",
    "wilson_interval",
    "write_run_report",
]


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module 'understudy' has no attribute {name!r}")

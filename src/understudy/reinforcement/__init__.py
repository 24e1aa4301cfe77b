"""Reinforcement learning from demonstrations: NPG and PPO, the term that makes them DAPG, TD3; one loop."""

from understudy.reinforcement.demos import TERMS, DemoTerm, DistanceTerm, Term
from understudy.reinforcement.finetune import FinetuneLog, finetune
from understudy.reinforcement.judging import Candidate, Verdict
from understudy.reinforcement.named import UPDATES, clone_for, starts_for, term_for, update_for
from understudy.reinforcement.starts import DemoStarts
from understudy.reinforcement.td3 import TD3
from understudy.reinforcement.updates import NPG, PPO, Update

__all__ = [
    "NPG",
    "PPO",
    "TD3",
    "TERMS",
    "UPDATES",
    "Candidate",
    "DemoStarts",
    "DemoTerm",
    "DistanceTerm",
    "FinetuneLog",
    "Term",
    "Update",
    "Verdict",
    "clone_for",
    "finetune",
    "starts_for",
    "term_for",
    "update_for",
]

"""Reinforcement learning from demonstrations: NPG and PPO, the demonstration term that makes them DAPG, one loop."""

from understudy.onpolicy.demos import TERMS, DemoTerm, DistanceTerm, Term
from understudy.onpolicy.finetune import FinetuneLog, finetune
from understudy.onpolicy.judging import Candidate, Verdict
from understudy.onpolicy.named import clone_for, starts_for, term_for, update_for
from understudy.onpolicy.starts import DemoStarts
from understudy.onpolicy.updates import NPG, PPO, UPDATES, Update

__all__ = [
    "NPG",
    "PPO",
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

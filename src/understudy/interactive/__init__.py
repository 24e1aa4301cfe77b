"""The DAgger family: one round loop, pluggable gates, and a ledger of what the expert's time cost and bought."""

from understudy.interactive.dagger import Round, Watcher, dagger
from understudy.interactive.gates import (
    GATES,
    DAggerGate,
    EnsembleGate,
    HGGate,
    LazyGate,
    SafeGate,
    ThriftyGate,
    gate_for,
)
from understudy.interactive.ledger import Entry, entry_of
from understudy.interactive.rehearsal import Rehearsal, rehearse
from understudy.interactive.tick import Gate, GatedAgent, Tick

__all__ = [
    "GATES",
    "DAggerGate",
    "EnsembleGate",
    "Entry",
    "Gate",
    "GatedAgent",
    "HGGate",
    "LazyGate",
    "Rehearsal",
    "Round",
    "SafeGate",
    "ThriftyGate",
    "Tick",
    "Watcher",
    "dagger",
    "entry_of",
    "gate_for",
    "rehearse",
]

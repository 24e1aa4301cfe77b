"""Policies: networks that training fits and execution asks."""

from understudy.network_shape import FeedForwardConfig
from understudy.policies.base import Batch, Policy, policy_from_file
from understudy.policies.ensemble import Ensemble
from understudy.policies.feedforward import FeedForward

__all__ = ["Batch", "Ensemble", "FeedForward", "FeedForwardConfig", "Policy", "policy_from_file"]

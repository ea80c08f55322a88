"""Sweeps: many runs, one call; planned, grouped, divided among devices, kept on disk."""

from skajax.sweeps._grid import grid
from skajax.sweeps._plan import Group, Plan
from skajax.sweeps._records import LanesFailed
from skajax.sweeps._sweep import load_sweep, sweep
from skajax.sweeps._times import on_times

__all__ = ["Group", "LanesFailed", "Plan", "grid", "load_sweep", "on_times", "sweep"]

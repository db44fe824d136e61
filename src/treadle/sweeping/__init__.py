"""What removes things whose time is over: the clock of all sweeps.

Nothing here knows what is swept: each room has the rules of its own sweep.
"""

from treadle.sweeping.sweeper import Sweep, Sweeper

__all__ = ["Sweep", "Sweeper"]

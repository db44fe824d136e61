"""The checkpointer: langgraph's checkpoints in Treadle's database.

``Saver`` is the server's; each execution of a run has a ``RunSaver`` of its own.
"""

from treadle.checkpoints.run_saver import RunSaver
from treadle.checkpoints.saver import Saver
from treadle.checkpoints.storage import Storage

__all__ = ["RunSaver", "Saver", "Storage"]

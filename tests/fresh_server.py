"""Start a server on a fresh database, for the conformance suite: CONFIG PORT.

The folders of the suite's configs stay clean, and no server sees another's threads. A test that
restarts its server sets KEEP_STATE and copies the config to a folder of its own: it gets the
default database, beside the config.
"""

import os
import sys
import tempfile
from pathlib import Path

config, port = sys.argv[1:]
treadle = str(Path(sys.executable).parent / "treadle")
command = [treadle, "dev", "--config", config, "--port", port, "--no-reload", "--no-browser"]
if "KEEP_STATE" not in os.environ:
    command += ["--db", str(Path(tempfile.mkdtemp(prefix="treadle-")) / "treadle.db")]
os.execv(treadle, command)

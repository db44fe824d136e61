"""Start a server on a fresh database, for the conformance suite: CONFIG PORT.

The folders of the suite's configs stay clean, and no server sees another's threads. A test that
restarts its server sets KEEP_STATE and copies the config to a folder of its own: it gets the
default database, beside the config. With DATABASE=postgres each server gets a PostgreSQL
database, whose name begins with TREADLE_TEST_PREFIX; who sets that drops them at the end.
With ROLES=split the server only answers requests, and a worker beside it executes the runs; with
ROLES=two there are two servers, and connections go to them in turn.
"""

import os
import subprocess
import sys
import tempfile
from hashlib import sha1
from pathlib import Path
from uuid import uuid4

config, port = sys.argv[1:]
treadle = str(Path(sys.executable).parent / "treadle")
command = [treadle, "dev", "--config", config, "--port", port, "--no-reload", "--no-browser"]
keeps = "KEEP_STATE" in os.environ
if os.environ.get("DATABASE") == "postgres":
    from postgres_server import PREFIX, make_database

    name = sha1(config.encode()).hexdigest() if keeps else uuid4().hex
    prefix = os.environ.get("TREADLE_TEST_PREFIX", PREFIX)
    command += ["--db", make_database(prefix + name[:16])]
elif not keeps:
    command += ["--db", str(Path(tempfile.mkdtemp(prefix="treadle-")) / "treadle.db")]
if os.environ.get("ROLES") == "split":
    os.environ.setdefault("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", "2")
    shared = ["--config", config, "--db", command[-1]]
    subprocess.Popen([treadle, "worker", *shared])  # in the group that is stopped as a whole
    command = [treadle, "serve", "--api-only", "--port", port, *shared]
if os.environ.get("ROLES") == "two":
    os.environ.setdefault("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", "2")
    proxy = str(Path(__file__).with_name("round_robin.py"))
    shared = ["--config", config, "--db", command[-1]]
    command = [sys.executable, proxy, port, treadle, "serve", *shared]
os.execv(command[0], command)

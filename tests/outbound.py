"""Hooks of pytest for conftest.py: nothing leaves the machine while tests run.

The guard is in this process, and by ``PYTHONPATH`` in every Python process that a test starts.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path

import pytest

GUARD = Path(__file__).parent / "guard"
LOG = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    if "OUTBOUND_LOG" not in os.environ:  # a worker of xdist has that of the run
        handle, name = tempfile.mkstemp(prefix="outbound-")
        os.close(handle)
        paths = [str(GUARD), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ |= {"OUTBOUND_LOG": name, "PYTHONPATH": os.pathsep.join(paths)}
        config.stash[LOG] = Path(name)
    if "OUTBOUND_GUARDED" not in os.environ or os.environ["OUTBOUND_GUARDED"] != str(os.getpid()):
        os.environ["OUTBOUND_GUARDED"] = str(os.getpid())
        runpy.run_path(str(GUARD / "sitecustomize.py"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    log = session.config.stash.get(LOG, None)
    if log is not None and (tried := log.read_text()):
        print(f"\nTried to leave this machine:\n{tried}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    log = config.stash.get(LOG, None)
    if log is not None:
        del config.stash[LOG], os.environ["OUTBOUND_LOG"]
        log.unlink()

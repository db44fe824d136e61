"""What an example prints, and what its guide shows of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30


def printed_by(example: str, url: str) -> str:
    """What ``examples/EXAMPLE.py`` prints when it talks to the server at ``url``."""
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py"), url],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    ).stdout


def shown_in(guide: str, begins: str) -> str:
    """The one block of ``docs/GUIDE.md`` that begins with ``begins``."""
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    [shown] = re.findall(rf"```text\n({re.escape(begins)}.*?)```", text, re.DOTALL)
    return shown

"""Environment variables that are no settings."""

import pytest

from treadle.settings import VARIABLES
from treadle.variables import ELSEWHERE, MEANINGLESS, NOT_IN_EFFECT, warnings


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DD_API_KEY", "Datadog"),
        ("LSD_CHECKPOINT_DELETE", "checkpoints"),
        ("TREADLE_EVENT_MAX_BYTES_PER_THREAD", "did you mean TREADLE_EVENTS_MAX_BYTES_PER_THREAD"),
        ("TREADLE_ZZZ", "not a known variable"),
    ],
)
def test_what_is_not_in_effect_is_said(name, said):
    [line] = warnings({name: "hush", "PATH": "/bin"})
    assert name in line
    assert said in line
    assert "hush" not in line


def test_one_line_for_all_that_ask_for_the_same():
    [line] = warnings({"DD_API_KEY": "x", "DD_ENV": "prod", "DD_SITE": " "})
    assert line.startswith("DD_API_KEY, DD_ENV are not in effect")


def test_what_is_known_is_accepted_in_silence():
    assert warnings(dict.fromkeys((*VARIABLES, *ELSEWHERE, *MEANINGLESS), "1")) == []


def test_nothing_is_in_two_tables():
    names = [*VARIABLES, *ELSEWHERE, *NOT_IN_EFFECT, *MEANINGLESS]
    assert len(names) == len(set(names))

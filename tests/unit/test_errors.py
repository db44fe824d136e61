"""The tree of errors, as the module draws it."""

from __future__ import annotations

import inspect
import re

import pytest

from treadle import errors

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, Exception)
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_module_draws_each_error_with_its_status(name):
    [line] = re.findall(rf"^[ │├└─]*{name}  .*$", errors.__doc__ or "", re.MULTILINE)
    if drawn := re.search(r" (\d{3}): ", line):
        assert CLASSES[name].status == int(drawn[1])


def test_what_clients_are_told_is_a_4xx_unless_it_is_not_their_fault():
    kinds = [kind for kind in CLASSES.values() if issubclass(kind, errors.RequestError)]
    assert len(kinds) > 5
    faults = [kind for kind in kinds if not 400 <= kind.status < 500]
    assert faults == [errors.Unsupported, errors.Unavailable]
    assert not issubclass(errors.StartupError, errors.RequestError)

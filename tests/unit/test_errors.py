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


def test_what_clients_are_told_is_a_4xx():
    kinds = [kind for kind in CLASSES.values() if issubclass(kind, errors.RequestError)]
    assert len(kinds) > 5
    assert all(400 <= kind.status < 500 for kind in kinds)
    assert not issubclass(errors.StartupError, errors.RequestError)

"""The migrations are there, in order, and named once."""

from __future__ import annotations

import re

import pytest

from treadle.database.migrations import migrations


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_migrations_come_in_the_order_of_their_numbers(engine):
    names = [name for name, _ in migrations(engine)]
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_each_is_sql(engine):
    assert all("CREATE" in script or "ALTER" in script for _, script in migrations(engine))

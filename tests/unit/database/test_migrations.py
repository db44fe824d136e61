"""The migrations are there, in order, and named once."""

from __future__ import annotations

import re

from treadle.database.migrations import migrations


def test_migrations_come_in_the_order_of_their_numbers():
    names = [name for name, _ in migrations("sqlite")]
    assert names == sorted(names)
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in names)
    assert len(set(names)) == len(names)


def test_each_is_sql():
    assert all("CREATE" in script or "ALTER" in script for _, script in migrations("sqlite"))

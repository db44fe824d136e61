"""Finding threads: filters, pages, order, select and extract."""

import pytest

from treadle.auth import ANYONE
from treadle.errors import Invalid, Refused
from treadle.ids import new_id
from treadle.threads import queries
from treadle.threads.extract import parse_extracts, resolve
from treadle.threads.models import ThreadCount, ThreadSearch


@pytest.fixture
def find(service, plain):
    async def find(**fields):
        return plain((await service.finder.search(ANYONE, ThreadSearch(**fields))).threads)

    return find


@pytest.fixture
def count(service):
    async def count(**fields):
        return await service.finder.count(ANYONE, ThreadCount(**fields))

    return count


def ids_of(threads):
    return [t["thread_id"] for t in threads]


# filters ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"i": 1}, [1]),
        ({"i": "1"}, []),
        ({"i": True}, []),
        ({"flag": True}, [1]),
        ({"flag": 1}, []),
        ({"i": None}, []),
        ({"nul": None}, [0, 1, 2]),
        ({"missing": None}, []),
        ({"nest": {"a": 1}}, [1]),
        ({"nest": {}}, [0, 1, 2]),
        ({"nest.a": 1}, []),
        ({"labels": ["y"]}, [0, 1, 2]),
        ({"labels": ["y", "x"]}, [0, 1, 2]),
        ({"labels": ["z"]}, []),
        ({}, [0, 1, 2]),
    ],
    ids=str,
)
async def test_metadata_is_containment(make, find, count, query, found):
    shared = {"tag": "t", "nul": None, "labels": ["x", "y"]}
    made = [
        (await make(metadata={"i": i, "nest": {"a": i}, "flag": i == 1, **shared}))["thread_id"]
        for i in range(3)
    ]
    assert sorted(ids_of(await find(metadata=query))) == sorted(made[i] for i in found)
    assert await count(metadata={"tag": "t", **query}) == len(found)


async def test_values_of_threads_that_have_none_do_not_match(make, update, find, count):
    await make()
    thread_id = (await make("echo"))["thread_id"]
    await update(thread_id, {"data": {"a": 1}})
    assert ids_of(await find(values={"data": {"a": 1}})) == [thread_id]
    assert await count(values={"data": {}}) == 1
    assert await count(values={"data": {"a": 2}}) == 0
    assert await count(values={}) == 2


async def test_status_and_ids(make, update, find):
    idle, waiting = (await make("chain"))["thread_id"], (await make("chain"))["thread_id"]
    await update(waiting, {"log": ["x"]}, as_node="a")
    assert ids_of(await find(status="interrupted")) == [waiting]
    assert ids_of(await find(ids=[idle.upper(), idle, new_id()])) == [idle]
    assert await find(ids=[idle], status="interrupted") == []
    with pytest.raises(Refused, match=r"^Invalid thread ID abc$"):
        await find(ids=["abc"])


# pages --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("query", [{}, {"metadata": {"tag": 1}}, {"metadata": {"n": {}}}])
@pytest.mark.parametrize("most", [1000, 2], ids=["few", "many"])
async def test_every_page_knows_the_total_and_what_is_next(make, service, monkeypatch, query, most):
    monkeypatch.setattr(queries, "MAX_SELECTED", most)
    made = [(await make(metadata={"tag": 1, "n": {}}))["thread_id"] for _ in range(5)]
    pages = [
        await service.finder.search(ANYONE, ThreadSearch(limit=2, offset=offset, **query))
        for offset in (0, 2, 4, 6)
    ]
    assert [i for page in pages for i in ids_of(page.threads)] == made[::-1]
    assert [page.total for page in pages] == [5, 5, 5, 5]
    assert [page.next_offset for page in pages] == [2, 4, None, None]


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [("created_at", "abc"), ("updated_at", "bca"), ("state_updated_at", "acb"), (None, "bca")],
)
async def test_order(make, update, patch, find, sort_by, order):
    ids = {name: (await make("chain"))["thread_id"] for name in "abc"}
    await update(ids["b"], {})
    await patch(ids["c"])
    await patch(ids["a"])
    named = {thread_id: name for name, thread_id in ids.items()}
    if sort_by is None:
        assert "".join(named[i] for i in ids_of(await find(sort_order="asc"))) == order[::-1]
        return
    for sort_order in ("asc", "desc"):
        found = ids_of(await find(sort_by=sort_by, sort_order=sort_order))
        assert "".join(named[i] for i in found) == (order if sort_order == "asc" else order[::-1])


@pytest.fixture
def patch(service):
    from treadle.threads.models import ThreadPatch

    async def patch(thread_id):
        await service.patch(ANYONE, thread_id, ThreadPatch(metadata={"x": 1}))

    return patch


# select and extract -------------------------------------------------------------------------------
async def test_select_and_extract_show_what_is_named(make, update, find):
    fresh = await make(metadata={"i": 1})
    assert await find(ids=[fresh["thread_id"]], select=["interrupts", "status"]) == [
        {"status": "idle"}
    ]
    thread_id = (await make("chain", metadata={"n": {"l": [1, {"q": 2}]}}))["thread_id"]
    await update(thread_id, {"log": ["a", "b"]})
    [found] = await find(
        ids=[thread_id],
        select=["thread_id"],
        extract={"q": "metadata.n.l[-1].q", "last": "values.log[-1]", "all": "interrupts"},
    )
    assert found == {"thread_id": thread_id, "extracted": {"q": 2, "last": "b", "all": {}}}
    [whole] = await find(ids=[thread_id], extract={"no": "config.no"})
    assert whole["extracted"] == {"no": None}
    assert whole["values"] == {"log": ["a", "b"]}


DOCUMENT = {"values": {"l": [1, [2, {"k": "v"}]], "d": {"": 0}, "é": 1}, "metadata": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("values.l[0]", 1),
        ("values.l[1][1].k", "v"),
        ("values.l[-2]", 1),
        ("values.l[-3]", None),
        ("values.l[2]", None),
        ("values.l.k", None),
        ("values.d[0]", None),
        ("values.é", 1),
        ("values", DOCUMENT["values"]),
        ("metadata.x", None),
        ("values.l[*]", None),
        ("values.l['a']", None),
        ("values.l[0:1]", None),
        ("values[0]", None),
        ("values.", None),
        ("values..l", None),
        ("values.l[0]x", None),
        ("values.l[99999999999999999999]", None),
    ],
)
def test_extract_paths(path, value):
    assert resolve(parse_extracts({"it": path})["it"], DOCUMENT) == value


@pytest.mark.parametrize(
    ("extract", "words"),
    [
        ({"a": "status"}, "Extract path 'status' must start with one of: config, interrupts,"),
        ({"a": "valuesx.y"}, "Extract path 'valuesx.y' must start with"),
        ({"a": ""}, "Extract path for 'a' must be a non-empty string"),
        ({"1a": "values"}, "Extract key '1a' must be a valid identifier"),
        ({"é": "values"}, "Extract key 'é' must be a valid identifier"),
        ({"values": "values"}, r"Extract keys cannot use reserved field names: \['values'\]"),
    ],
)
def test_bad_extracts_are_explained(extract, words):
    with pytest.raises(Invalid, match=f"^{words}"):
        parse_extracts(extract)

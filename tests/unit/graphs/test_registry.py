"""What a graph entry may point to, and how each form is opened."""

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from treadle.auth import ANYONE, Caller
from treadle.auth.users import User
from treadle.errors import NotFound, StartupError
from treadle.graphs import bind

STORE = InMemoryStore()
FORMS = """
uncompiled = builder("uncompiled")
compiled = builder("compiled").compile()
named = builder("named").compile(name="Shop")

@entrypoint()
async def functional(value: dict) -> dict:
    return {"out": f"entrypoint {value.get('n')}"}

def no_arguments():
    return builder("no arguments").compile()

def with_config(config: RunnableConfig):
    return builder(f"config {config['configurable']['flavor']}")

def unannotated(cfg):
    return builder(f"config {cfg['configurable']['flavor']}")

def config_as_dict(settings: dict[str, Any]):
    return builder(f"dict {settings['configurable']['flavor']}")

async def async_with_config(config: RunnableConfig):
    return builder(f"async {config['configurable']['flavor']}")

def with_runtime(runtime: ServerRuntime):
    return builder(f"runtime {runtime.access_context} {runtime.user}")

def optional(config: RunnableConfig | None = None, verbose: bool = False):
    return builder(f"optional {config['configurable']['flavor']} {verbose}")

async def with_both(rt: "ServerRuntime[dict]", config: "RunnableConfig"):
    executing = rt.execution_runtime is not None
    return builder(f"both {config['configurable']['flavor']} {executing}")

@asynccontextmanager
async def in_async_context(config: RunnableConfig):
    yield builder("async context")

@contextmanager
def in_context(config: RunnableConfig):
    yield builder("context").compile()

class Maker:
    def __call__(self, runtime):
        return builder(f"callable {runtime.access_context}")

maker = Maker()
"""
SAID = {
    "uncompiled": "uncompiled",
    "compiled": "compiled",
    "named": "named",
    "functional": "entrypoint 5",
    "no_arguments": "no arguments",
    "with_config": "config vanilla",
    "unannotated": "config vanilla",
    "config_as_dict": "dict vanilla",
    "async_with_config": "async vanilla",
    "with_runtime": "runtime threads.create_run None",
    "optional": "optional vanilla False",
    "with_both": "both vanilla True",
    "in_async_context": "async context",
    "in_context": "context",
    "maker": "callable threads.create_run",
}


def opened(registry, graph_id, access="threads.create_run", caller=ANYONE, **more):
    config = {"configurable": {"flavor": "vanilla"}}
    return registry.open(graph_id, config, access=access, store=STORE, caller=caller, **more)


@pytest.fixture
def forms(project):
    registry = project({name: f"./forms.py:{name}" for name in SAID}, {"forms.py": FORMS})
    registry.load()
    return registry


@pytest.mark.parametrize("name", SAID)
async def test_each_form_is_opened(forms, name):
    async with opened(forms, name) as graph:
        assert (await graph.ainvoke({"n": 5}))["out"] == SAID[name]
        assert graph.name == ("Shop" if name == "named" else name)


def test_ids_keep_the_order_of_the_config(forms):
    assert forms.ids == tuple(SAID)
    assert "named" in forms
    assert "nope" not in forms
    assert forms.spec("named").source == "./forms.py:named"


def test_only_factories_are_not_static(forms):
    static = [name for name in SAID if forms.static(name) is not None]
    assert static == ["uncompiled", "compiled", "named", "functional"]


async def test_an_unknown_id_is_not_found(forms):
    with pytest.raises(NotFound, match="nope"):
        forms.spec("nope")
    with pytest.raises(NotFound, match="uncompiled"):
        async with opened(forms, "nope"):
            pass


def test_one_graph_under_two_ids_has_both_names(project):
    registry = project({"a": "./g.py:g", "b": "./g.py:g"}, {"g.py": "g = builder('x').compile()"})
    registry.load()
    assert (registry.static("a").name, registry.static("b").name) == ("a", "b")


async def test_a_context_manager_is_open_for_the_use_and_then_closed(project):
    code = """
    log = []
    @asynccontextmanager
    async def g():
        log.append("open")
        try:
            yield builder("x")
        finally:
            log.append("closed")
    """
    registry = project({"g": "./managed.py:g"}, {"managed.py": code})
    registry.load()
    import managed

    assert managed.log == []
    async with opened(registry, "g"):
        assert managed.log == ["open"]
    assert managed.log == ["open", "closed"]
    with pytest.raises(RuntimeError, match="in the run"):
        async with opened(registry, "g"):
            raise RuntimeError("in the run")
    assert managed.log == ["open", "closed"] * 2


async def test_the_runtime_says_who_wants_what(project):
    code = """
    from dataclasses import dataclass
    seen = []
    @dataclass
    class Ctx:
        place: str
    def g(runtime: ServerRuntime[Ctx]):
        seen.append(runtime)
        return builder("x")
    """
    registry = project({"g": "./runtimes.py:g"}, {"runtimes.py": code})
    registry.load()
    user = User({"identity": "ann", "team": "blue"}, ["read"])
    caller = Caller("ann", ("read",), user)
    async with opened(registry, "g", caller=caller, context={"place": "shop"}):
        pass
    async with opened(registry, "g", access="threads.read", context={"place": "shop"}):
        pass
    import runtimes

    run, read = runtimes.seen
    assert run.execution_runtime.context == runtimes.Ctx("shop")
    assert run.store is STORE
    assert run.ensure_user().identity == "ann"
    assert (run.user["team"], run.user.permissions) == ("blue", ["read"])
    assert (read.access_context, read.execution_runtime, read.user) == ("threads.read", None, None)


async def test_a_factory_that_makes_no_graph_says_so(project):
    code = "def five():\n    return 5\nasync def gen():\n    yield builder('x')\n"
    registry = project({"five": "./g.py:five", "gen": "./g.py:gen"}, {"g.py": code})
    registry.load()
    with pytest.raises(TypeError, match="made an int"):
        async with opened(registry, "five"):
            pass
    with pytest.raises(TypeError, match="asynccontextmanager"):
        async with opened(registry, "gen"):
            pass


async def test_a_factory_that_raises_raises_at_its_use_only(project):
    registry = project(
        {"g": "./g.py:g"}, {"g.py": "def g():\n    raise RuntimeError('factory broke')\n"}
    )
    registry.load()
    with pytest.raises(RuntimeError, match="factory broke"):
        async with opened(registry, "g"):
            pass


def test_two_parameters_of_one_kind_are_refused(project):
    registry = project({"g": "./g.py:g"}, {"g.py": "def g(a, b): ...\n"})
    with pytest.raises(StartupError, match=r"\(a, b\)"):
        registry.load()


async def test_bind_gives_a_copy_its_own_checkpointer_and_store(project):
    code = "g = builder('x').compile(checkpointer=False)\n"
    registry = project({"g": "./g.py:g"}, {"g.py": code})
    registry.load()
    saver, graph = InMemorySaver(), registry.static("g")
    bound = bind(graph, saver, STORE)
    config = {"configurable": {"thread_id": "1"}}
    await bound.ainvoke({}, config)
    assert (await bound.aget_state(config)).values == {"out": "x"}
    assert (bound.checkpointer, bound.store) == (saver, STORE)
    assert (graph.checkpointer, graph.store) == (False, None)
    assert bound.nodes is graph.nodes

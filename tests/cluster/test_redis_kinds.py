"""Redis as others run it: a cluster of nodes, behind TLS, shared with other systems."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from houses import Cluster, stream, until
from redis import Redis

import redis_server
from free_port import free_port

SLOTS = 16384
NODES = 3


class Node:
    """A server of Redis that is the tests' own."""

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        self.port, self.folder = free_port(), folder
        folder.mkdir(exist_ok=True)
        self._plain_port = 0 if tls else self.port
        self._options = [*options, *(["--tls-port", str(self.port)] if tls else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = redis_server.start(self._plain_port, str(self.folder), *self._options)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def says(self, command: str, text: bytes) -> bool:
        return text in (redis_server.ask(self.port, command) or b"")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """A Redis cluster, of which each node has its share of the slots."""
    folder = tmp_path_factory.mktemp("nodes")
    buses = [free_port() for _ in range(NODES)]
    enabled = "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"
    nodes = [Node(folder / f"{bus}", *enabled, "--cluster-port", f"{bus}") for bus in buses]
    share = -(-SLOTS // NODES)
    for number, node in enumerate(nodes):
        node.start()
        last = min(share * (number + 1), SLOTS) - 1
        assert node.says(f"CLUSTER ADDSLOTSRANGE {share * number} {last}", b"+OK")
    for node, bus in zip(nodes[1:], buses[1:], strict=True):
        assert nodes[0].says(f"CLUSTER MEET 127.0.0.1 {node.port} {bus}", b"+OK")
    for node in nodes:
        until(lambda node=node: node.says("CLUSTER INFO", b"cluster_state:ok"), "the cluster")
    yield nodes
    for node in nodes:
        node.stop()


def two_processes(make_cluster: Callable[..., Cluster], **env: str) -> Cluster:
    cluster = make_cluster(**env)
    cluster.api("a")
    cluster.worker("one")
    cluster.start()
    return cluster


def told(cluster: Cluster, n: int = 200) -> list[str]:
    """What a client sees of a run in another process."""
    body = {"assistant_id": "talk", "input": {"n": n}, "stream_mode": "custom"}
    with stream(cluster.processes[0], "/runs/stream", body) as events:
        return [event.name for event in events]


ALL = ["metadata"] + ["custom"] * 200


def keys(node: Node) -> list[str]:
    with Redis(port=node.port) as client:
        return sorted(key.decode() for key in client.scan_iter())


def went_through_redis(cluster: Cluster) -> bool:
    return not any("Redis fails" in process.log for process in cluster.processes)


def test_a_cluster_carries_events(make_cluster: Callable[..., Cluster], nodes: list[Node]) -> None:
    uri = f"redis://127.0.0.1:{nodes[0].port}"
    cluster = two_processes(make_cluster, REDIS_URI=uri, REDIS_CLUSTER="true")
    assert cluster.processes[0].away() == []
    assert told(cluster) == ALL
    assert went_through_redis(cluster)
    streams = [key for node in nodes for key in keys(node)]
    assert len(streams) == 2, streams


def test_a_cluster_that_goes_down_and_comes_again_costs_nothing(
    make_cluster: Callable[..., Cluster], nodes: list[Node]
) -> None:
    uri = f"redis://127.0.0.1:{nodes[0].port}"
    cluster = two_processes(make_cluster, REDIS_URI=uri, REDIS_CLUSTER="true")
    a = cluster.processes[0]
    for node in nodes:
        node.stop()
    until(lambda: a.away() == ["redis"], "it to be known")
    assert told(cluster) == ALL
    for node in nodes:
        node.start()
    until(lambda: a.away() == [], "the cluster again", 30)
    for process in cluster.processes:
        until(lambda process=process: "carries events again" in process.log, "the way of events")
    assert told(cluster) == ALL
    assert all("Traceback" not in process.log for process in cluster.processes)


def test_a_prefix_keeps_systems_apart(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    node = Node(tmp_path / "shared")
    node.start()
    try:
        uri = f"redis://127.0.0.1:{node.port}/0"
        for prefix in ("red:", "blue:"):
            cluster = two_processes(make_cluster, REDIS_URI=uri, REDIS_KEY_PREFIX=prefix)
            assert told(cluster) == ALL
            assert went_through_redis(cluster)
        assert [key.partition("treadle:")[0] for key in keys(node)] == ["blue:"] * 2 + ["red:"] * 2
    finally:
        node.stop()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Path]]:
    """A Redis that takes TLS alone, and the certificate of who vouches for it."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    files = "--tls-cert-file", str(certificate), "--tls-key-file", str(key)
    node = Node(
        folder, *files, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", tls=True
    )
    node.start()
    yield node, certificate
    node.stop()


def test_tls_with_an_authority_of_ones_own(
    make_cluster: Callable[..., Cluster], secured: tuple[Node, Path]
) -> None:
    node, certificate = secured
    uri = f"rediss://127.0.0.1:{node.port}/0?ssl_ca_certs={certificate}"
    cluster = two_processes(make_cluster, REDIS_URI=uri)
    assert cluster.processes[0].away() == []
    assert told(cluster) == ALL
    assert went_through_redis(cluster)


def test_a_server_that_nobody_vouches_for_is_not_used(
    make_cluster: Callable[..., Cluster], secured: tuple[Node, Path]
) -> None:
    uri = f"rediss://127.0.0.1:{secured[0].port}/0"
    cluster = two_processes(make_cluster, REDIS_URI=uri)
    assert cluster.processes[0].away() == ["redis"]
    until(lambda: "CERTIFICATE_VERIFY_FAILED" in cluster.processes[0].log, "a word of why")
    assert told(cluster) == ALL


def test_an_option_that_is_none_is_a_mistake_at_the_start(
    make_cluster: Callable[..., Cluster],
) -> None:
    server = make_cluster(REDIS_URI="redis://127.0.0.1/0?colour=red").server("server")
    server.start(ready=False)
    assert server.wait() == 1
    assert "REDIS_URI cannot be used" in server.log
    assert "colour" in server.log
    assert "Traceback" not in server.log

"""Two servers on one database behind one port, which takes them in turn: PORT COMMAND ...

``COMMAND`` starts a server; ``--port N`` is added to it. Each connection goes to the next of the
servers that answers, so hardly two requests of a test meet the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys

from free_port import free_port

SERVERS = 2


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def main(port: int, command: list[str]) -> int:
    ports = [free_port() for _ in range(SERVERS)]
    servers = [
        await asyncio.create_subprocess_exec(*command, "--port", str(each)) for each in ports
    ]
    for sent in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(
            sent, lambda sent=sent: [server.send_signal(sent) for server in servers]
        )
    turns = itertools.cycle(ports)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", next(turns))
            await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))

    for each in ports:
        while all(server.returncode is None for server in servers):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", each)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        return max([await server.wait() for server in servers])


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]), sys.argv[2:])))

"""Talks to the support agent as an A2A client does. ``pip install a2a-sdk``, then:

make dev                                              # in another terminal
.venv/bin/python examples/a2a_client.py [http://127.0.0.1:2024]
"""

import asyncio
import sys
from uuid import uuid4

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, SendMessageRequest, Task, TaskState


async def main(url: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        card = await A2ACardResolver(http, f"{url}/a2a/support").get_agent_card()
        agent = ClientFactory(ClientConfig(httpx_client=http)).create(card)
        print(f"{card.name}: {card.description}")

        async def say(text: str, **where: str) -> Task:
            """Send a message, and show what comes of it."""
            print(f"\nyou> {text}\nagent> ", end="", flush=True)
            message = Message(
                message_id=str(uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)], **where
            )
            said, task = "", Task()
            async for event in agent.send_message(SendMessageRequest(message=message)):
                if event.HasField("task"):
                    task = event.task
                elif event.HasField("artifact_update"):
                    if event.artifact_update.artifact.name == "Interrupt":
                        asked = event.artifact_update.artifact.parts[0].data.struct_value["value"]
                        print(asked["question"], end="")
                else:
                    status = event.status_update.status
                    now = "".join(part.text for part in status.message.parts)
                    print(now.removeprefix(said), end="", flush=True)
                    said = now
            print(f"\n({TaskState.Name(status.state)})")
            return task

        found = await say("Where is my order 1042?")
        asked = await say("It arrived broken. I want a refund.", context_id=found.context_id)
        await say("yes", task_id=asked.id, context_id=asked.context_id)


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:] or ["http://127.0.0.1:2024"])))

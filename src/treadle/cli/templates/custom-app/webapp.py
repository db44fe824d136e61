"""Routes of your own beside the API. They call it by the SDK, in process."""

from langgraph_sdk import get_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def ask(request: Request) -> JSONResponse:
    """``GET /ask?text=Hello?`` runs the agent and waits for its answer."""
    message = {"role": "user", "content": request.query_params.get("text", "Who are you?")}
    state = await get_client().runs.wait(None, "agent", input={"messages": [message]})
    return JSONResponse({"answer": state["messages"][-1]["content"]})


app = Starlette(routes=[Route("/ask", ask)])

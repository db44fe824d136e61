"""A support agent: it looks up orders, and refunds one once somebody has approved.

It runs offline on a scripted model. For a real one, install ``langchain`` and the package of the
model's provider, and set MODEL and the provider's key:

    pip install langchain langchain-openai
    MODEL=openai:gpt-4.1-mini OPENAI_API_KEY=... make dev
"""

import os

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import SystemMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from scripted_model import ScriptedModel

ORDERS = {
    "1042": {"item": "espresso machine", "price": 249.00, "status": "delivered on 3 November"},
    "1043": {"item": "coffee grinder", "price": 89.50, "status": "on its way, due tomorrow"},
}
INSTRUCTIONS = SystemMessage(
    "You are the support agent of a shop for coffee things. Look an order up before you speak "
    "of it. A customer who wants money back gets a refund by the tool, which asks for approval."
)


@tool
async def lookup_order(order_id: str) -> str:
    """What was ordered, for how much, and where it is."""
    if (order := ORDERS.get(order_id)) is None:
        return f"There is no order {order_id}."
    return f"Order {order_id}: {order['item']}, {order['price']:.2f} EUR, {order['status']}."


@tool
async def refund_order(order_id: str, reason: str) -> str:
    """Refund an order, once a human has approved."""
    if (order := ORDERS.get(order_id)) is None:
        return f"There is no order {order_id}."
    answer = interrupt(
        {
            "question": f"Refund {order['price']:.2f} EUR for order {order_id}?",
            "item": order["item"],
            "reason": reason,
        }
    )
    if str(answer).strip().lower() not in ("yes", "y", "true", "approve"):
        return f"The refund for order {order_id} was declined: {answer}."
    return f"Refunded {order['price']:.2f} EUR for order {order_id}."


TOOLS = [lookup_order, refund_order]


def make_model() -> BaseChatModel:
    if name := os.environ.get("MODEL"):
        from langchain.chat_models import init_chat_model

        return init_chat_model(name)
    return ScriptedModel()


model = make_model().bind_tools(TOOLS)


async def agent(state: MessagesState) -> dict:
    return {"messages": [await model.ainvoke([INSTRUCTIONS, *state["messages"]])]}


graph = (
    StateGraph(MessagesState)
    .add_node(agent)
    .add_node("tools", ToolNode(TOOLS))
    .add_edge(START, "agent")
    .add_conditional_edges("agent", tools_condition)
    .add_edge("tools", "agent")
    .compile()
)

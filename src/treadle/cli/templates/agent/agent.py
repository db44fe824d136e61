"""A graph that greets, and asks before it does something. It needs no model and no key."""

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


def answer(state: MessagesState) -> dict:
    """Replace this with a call of your model."""
    text = state["messages"][-1].text
    if "?" in text:
        return {"messages": [AIMessage("I know no answers yet: put a model here.")]}
    wanted = interrupt({"question": f"Shall I say it back: {text!r}?"})
    return {"messages": [AIMessage(f"You said {text!r}." if wanted == "yes" else "As you like.")]}


graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()

"""Protocol v2: a thread's events by channel and number, and commands.

envelope.py     an entry of the event log as an event on the wire
channels.py     what a subscriber wants of them
recording.py    from what a command's graph streams to entries
plain.py        the same for runs of the plain API
feed.py         the events of a thread for one connection: the past, then what comes
sse.py, websocket.py    the two transports
commands.py     commands and their answers; run_commands.py, state_commands.py do them
tree.py         the agents of a run, from its lifecycle events
routes.py       the endpoints
"""

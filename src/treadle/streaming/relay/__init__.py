"""Events on their way between processes: a client may be connected to any of them.

A process that has readers of a thread notes so in the database (``watches``), before it looks at
anything else there. Whoever executes a run reads that when it claims it, or is told, and sends
the events to those processes: nothing, if there are none. The end of a run is sent by the very
transaction that ends it, so whoever watches hears of it, even if nothing else of the run is left.

Every piece that is sent names the event before it. So a receiver knows when it has missed
something, whichever way the pieces took: it waits for a moment, then replays what is kept. If that
cannot fill the gap, it breaks its streams off, and clients come again.

batches.py      the pieces
relays.py       the ways that they take: through the database
redis.py        or through Redis
forwarding.py   the side that executes
watching.py     the side that has readers
hearing.py      what has been received: put in order, gaps filled
queries.py      SQL
"""

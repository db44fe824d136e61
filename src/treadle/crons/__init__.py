"""Crons: runs that are started by the clock.

A tick is a time at which a schedule matches. Whatever processes share the database, each tick
starts at most one run: the transaction that makes the run also moves the cron on from the tick,
and is refused if another has done so.
"""

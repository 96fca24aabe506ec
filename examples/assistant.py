#!/usr/bin/env python3
"""A desktop assistant in a terminal: talks to deltad over D-Bus, knowing only its name.

Needs dbus-fast (pip install dbus-fast). Ctrl-C stops an answer, Ctrl-D ends the conversation.
"""

import asyncio
import json
import os
import signal
import sys

from dbus_fast import BusType, DBusError, Variant
from dbus_fast.aio import MessageBus

NAME = "org.deltad.Inference1"
PATH = "/org/deltad/Inference1"


async def get(bus, path, interface):
    described = await bus.introspect(NAME, path)
    return bus.get_proxy_object(NAME, path, described).get_interface(f"{NAME}.{interface}")


async def events(descriptor):
    """The lines of the descriptor, each a JSON object."""
    reader = asyncio.StreamReader(limit=1 << 20)
    pipe = os.fdopen(descriptor, "rb")
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async for line in reader:
            yield json.loads(line)
    finally:
        transport.close()


async def answer(bus, session, text):
    path, descriptor = await session.call_send(text, {"max_tokens": Variant("u", 4096)})
    generation = await get(bus, path, "Generation")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: loop.create_task(generation.call_cancel()))
    async for event in events(descriptor):
        if event["event"] == "delta" and event["kind"] == "text":
            print(event["text"], end="", flush=True)
        elif event["event"] == "end":
            print("" if event["reason"] == "stop" else f" [{event['reason']}]")
    loop.remove_signal_handler(signal.SIGINT)


async def main():
    kind = BusType.SYSTEM if "--system" in sys.argv else BusType.SESSION
    bus = await MessageBus(bus_type=kind, negotiate_unix_fd=True).connect()
    manager = await get(bus, PATH, "Manager")
    print(f"{await manager.get_model()}, {await manager.get_context_length()} tokens")
    path = await manager.call_create_session({"temperature": Variant("d", 0.0)})
    session = await get(bus, path, "Session")
    while text := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            await answer(bus, session, text)
        except DBusError as error:
            print(f"{error.type}: {error.text}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())

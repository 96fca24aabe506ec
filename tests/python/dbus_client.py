"""What a desktop program does with a daemon that it knows by name alone. Fails by assertion."""

import asyncio
import json
import os

from dbus_fast import DBusError, Variant
from dbus_fast.aio import MessageBus

NAME, PATH = "org.deltad.Inference1", "/org/deltad/Inference1"
ENDLESS = {"ignore_eos": Variant("b", True), "max_tokens": Variant("u", 100_000)}
HELLO = [{"role": Variant("s", "user"), "content": Variant("s", "hello")}]


async def get(bus, path, interface):
    described = await bus.introspect(NAME, path)
    return bus.get_proxy_object(NAME, path, described).get_interface(f"{NAME}.{interface}")


async def cancels_by_method_and_by_closing(bus, manager):
    path, descriptor = await manager.call_chat(HELLO, ENDLESS)
    with os.fdopen(descriptor, "rb") as lines:
        assert json.loads(lines.readline())["version"] == 1
        assert json.loads(lines.readline())["event"] == "delta"
        generation = await get(bus, path, "Generation")
        await generation.call_cancel()
        events = [json.loads(line) for line in lines]
        assert events[-1]["event"] == "end" and events[-1]["reason"] == "cancelled"
    path, descriptor = await manager.call_chat(HELLO, ENDLESS)
    os.close(descriptor)
    generation = await get(bus, path, "Generation")
    while await generation.get_state() != 4:
        await asyncio.sleep(0.01)


async def hears_signals(bus, manager):
    session = await get(bus, await manager.call_create_session({}), "Session")
    # A seed: five tokens of a random model may all be ones that nobody reads.
    options = {"ignore_eos": Variant("b", True), "max_tokens": Variant("u", 5), "seed": Variant("t", 7)}
    # The handlers must be there before the signals; a raw handler needs no path.
    ended, texts = asyncio.get_running_loop().create_future(), []

    def heard(message):
        if message.member == "Delta":
            texts.append(message.body[2])
        elif message.member == "Finished" and not ended.done():
            ended.set_result(message.body)

    bus.add_message_handler(heard)
    await session.call_send_by_signals("hello", options)
    reason, usage = await asyncio.wait_for(ended, 60)
    assert reason == "length" and usage["completion_tokens"].value == 5, (reason, usage)
    assert "".join(texts)
    bus.remove_message_handler(heard)
    while await session.get_busy():
        await asyncio.sleep(0.01)
    roles = [m["role"].value for m in await session.call_messages()]
    assert roles == ["user", "assistant"], roles
    await session.call_close()


async def calls_tools(manager):
    schema = {
        "type": Variant("s", "object"),
        "properties": Variant("a{sv}", {"city": Variant("a{sv}", {"type": Variant("s", "string")})}),
        "required": Variant("as", ["city"]),
    }
    function = {"name": Variant("s", "weather"), "parameters": Variant("a{sv}", schema)}
    tool = {"type": Variant("s", "function"), "function": Variant("a{sv}", function)}
    options = {
        "tools": Variant("aa{sv}", [tool]),
        "tool_choice": Variant("s", "required"),
        "max_tokens": Variant("u", 400),
        "seed": Variant("t", 2**63 + 1),
    }
    _, descriptor = await manager.call_chat(HELLO, options)
    with os.fdopen(descriptor, "rb") as lines:
        events = [json.loads(line) for line in lines]
    calls = [e for e in events if e.get("kind") == "call"]
    assert calls and calls[0]["name"] == "weather", events


async def is_refused_by_name(manager):
    try:
        await manager.call_ask("hello", {"top_q": Variant("d", 0.5)})
    except DBusError as error:
        assert error.type == f"{NAME}.Error.UnknownOption", error.type
        assert "top_q" in error.text
    else:
        raise AssertionError("an unknown option was taken")


async def main():
    bus = await MessageBus(negotiate_unix_fd=True).connect()
    manager = await get(bus, PATH, "Manager")
    assert await manager.get_state() == 2
    assert (await manager.call_list_models())[0]["id"].value == await manager.get_model()
    assert await manager.call_tokenize("hello", {})
    await cancels_by_method_and_by_closing(bus, manager)
    await hears_signals(bus, manager)
    await calls_tools(manager)
    await is_refused_by_name(manager)


asyncio.run(main())

"""What jeepney, which reads and writes a bus without a loop, does with the daemon. Fails by assertion."""

import json

from jeepney import DBusAddress, DBusErrorResponse, MatchRule, Properties, new_method_call
from jeepney.io.blocking import Proxy, open_dbus_connection

NAME, PATH = "org.deltad.Inference1", "/org/deltad/Inference1"
MANAGER = DBusAddress(PATH, bus_name=NAME, interface=f"{NAME}.Manager")
HELLO = [{"role": ("s", "user"), "content": ("s", "hello")}]
SHORT = {"ignore_eos": ("b", True), "max_tokens": ("u", 5), "seed": ("t", 7)}


def call(bus, address, method, signature=None, body=()):
    reply = bus.send_and_get_reply(new_method_call(address, method, signature, body), timeout=60)
    if reply.header.message_type.name == "error":
        raise DBusErrorResponse(reply)
    return reply.body


def main():
    with open_dbus_connection(enable_fds=True) as bus:
        state = bus.send_and_get_reply(Properties(MANAGER).get("State"), timeout=60).body
        assert state == (("u", 2),), state
        text, usage = call(bus, MANAGER, "Ask", "sa{sv}", ("hello", SHORT))
        assert usage["completion_tokens"][1] == 5 and text, (text, usage)
        generation, descriptor = call(bus, MANAGER, "Chat", "aa{sv}a{sv}", (HELLO, SHORT))
        with descriptor.to_file("rb") as lines:
            events = [json.loads(line) for line in lines]
        assert events[0]["generation"] == generation and events[-1]["reason"] == "length", events
        try:
            call(bus, MANAGER, "Ask", "sa{sv}", ("hello", {"max_token": ("u", 5)}))
            raise AssertionError("an unknown option was taken")
        except DBusErrorResponse as refused:
            assert refused.name == f"{NAME}.Error.UnknownOption", refused
        # By no sender: jeepney compares names, and signals come from a connection's number.
        signals = MatchRule(type="signal", interface=f"{NAME}.Generation")
        with bus.filter(signals, bufsize=100) as heard:
            call(bus, MANAGER, "ChatBySignals", "aa{sv}a{sv}", (HELLO, SHORT))
            members = []
            while "Finished" not in members:
                members.append(bus.recv_until_filtered(heard, timeout=60).header.fields[3])
        assert "Delta" in members, members


if __name__ == "__main__":
    main()

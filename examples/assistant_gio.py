#!/usr/bin/env python3
"""The same assistant with GLib and Gio, as GNOME programs are written (Debian: python3-gi).

Ctrl-C stops an answer, Ctrl-D ends the conversation.
"""

import json
import sys

import gi

gi.require_version("Gio", "2.0")
gi.require_version("GLib", "2.0")
from gi.repository import Gio, GLib  # noqa: E402

try:
    gi.require_version("GioUnix", "2.0")
    from gi.repository.GioUnix import InputStream  # noqa: E402
except (ValueError, ImportError):
    from gi.repository.Gio import UnixInputStream as InputStream  # noqa: E402

NAME = "org.deltad.Inference1"
SIGINT = 2


def proxy(bus, path, interface):
    return Gio.DBusProxy.new_sync(bus, 0, None, NAME, path, f"{NAME}.{interface}", None)


def answer(bus, session, text):
    arguments = GLib.Variant("(sa{sv})", (text, {"max_tokens": GLib.Variant("u", 4096)}))
    reply, descriptors = session.call_with_unix_fd_list_sync("Send", arguments, 0, -1, None, None)
    path, index = reply.unpack()
    generation = proxy(bus, path, "Generation")
    lines = Gio.DataInputStream.new(InputStream.new(descriptors.get(index), True))
    loop = GLib.MainLoop()

    def read(stream, result):
        line, _ = stream.read_line_finish_utf8(result)
        if line is None:
            return loop.quit()
        event = json.loads(line)
        if event["event"] == "delta" and event["kind"] == "text":
            print(event["text"], end="", flush=True)
        elif event["event"] == "end":
            print("" if event["reason"] == "stop" else f" [{event['reason']}]")
        stream.read_line_async(GLib.PRIORITY_DEFAULT, None, read)

    def cancel():
        generation.call("Cancel", None, 0, -1, None, None)
        return True

    interrupt = GLib.unix_signal_add(GLib.PRIORITY_HIGH, SIGINT, cancel)
    lines.read_line_async(GLib.PRIORITY_DEFAULT, None, read)
    loop.run()
    GLib.source_remove(interrupt)


def main():
    kind = Gio.BusType.SYSTEM if "--system" in sys.argv else Gio.BusType.SESSION
    bus = Gio.bus_get_sync(kind, None)
    manager = proxy(bus, "/org/deltad/Inference1", "Manager")
    model = manager.get_cached_property("Model").unpack()
    print(f"{model}, {manager.get_cached_property('ContextLength').unpack()} tokens")
    options = GLib.Variant("(a{sv})", ({"temperature": GLib.Variant("d", 0.0)},))
    path = manager.call_sync("CreateSession", options, 0, -1, None).unpack()[0]
    session = proxy(bus, path, "Session")
    while text := sys.stdin.readline().strip():
        try:
            answer(bus, session, text)
        except GLib.Error as error:
            print(error.message, file=sys.stderr)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A window to talk with the model: the conversations that the daemon keeps, answers as they come, and
a stop. GTK 4 and D-Bus, nothing else (Debian: python3-gi gir1.2-gtk-4.0).

What is said lives in the daemon: it is there again when the window, or the daemon, comes back.
"""

import json
import sys

import gi

gi.require_version("Gdk", "4.0")
gi.require_version("Gtk", "4.0")
from gi.repository import Gdk, Gio, GLib, Gtk, Pango  # noqa: E402

try:
    gi.require_version("GioUnix", "2.0")
    from gi.repository.GioUnix import InputStream  # noqa: E402
except (ValueError, ImportError):
    from gi.repository.Gio import UnixInputStream as InputStream  # noqa: E402

NAME, PATH = "org.deltad.Inference1", "/org/deltad/Inference1"
OBJECTS = "org.freedesktop.DBus.ObjectManager"
STYLE = b"""
.message { padding: 8px 12px; border-radius: 12px; background: alpha(currentColor, 0.07); }
.user { background: alpha(@theme_selected_bg_color, 0.25); }
.failed { color: @error_color; }
"""


class Daemon:
    """Calls on the bus. Nothing waits for an answer: each call says what to do with it."""

    def __init__(self, bus, failed):
        self.bus, self.failed = bus, failed

    def call(self, path, member, arguments, then):
        """`then` gets what the method returns, and the descriptors that came with it."""
        interface, method = member.rsplit(".", 1)
        interface = interface if "." in interface else f"{NAME}.{interface}"

        def done(bus, result):
            try:
                reply, descriptors = bus.call_with_unix_fd_list_finish(result)
            except GLib.Error as error:
                return self.failed(error.message.split(": ", 1)[-1])
            then(*reply.unpack(), *([descriptors] if descriptors and descriptors.get_length() else []))

        # Loading a model takes longer than a call usually may.
        self.bus.call_with_unix_fd_list(NAME, path, interface, method, arguments, None, 0, 120_000, None, None, done)

    def send(self, session, text, began, event, ended):
        """`began` gets the generation's path, `event` each line, `ended` nothing."""

        def opened(generation, index, descriptors):
            lines = Gio.DataInputStream.new(InputStream.new(descriptors.get(index), True))
            began(generation)

            def read(stream, result):
                line, _ = stream.read_line_finish_utf8(result)
                if line is None:
                    return ended()
                event(json.loads(line))
                stream.read_line_async(GLib.PRIORITY_DEFAULT, None, read)

            lines.read_line_async(GLib.PRIORITY_DEFAULT, None, read)

        self.call(session, "Session.Send", GLib.Variant("(sa{sv})", (text, {})), opened)


class Conversation:
    """A session of the daemon: its row in the list, and the page of what was said."""

    def __init__(self, daemon, session, changed):
        self.daemon, self.session, self.changed = daemon, session, changed
        self.generation = None
        self.title = Gtk.Label(label="New conversation", xalign=0, ellipsize=Pango.EllipsizeMode.END,
                               margin_top=6, margin_bottom=6)
        self.row = Gtk.ListBoxRow(child=self.title)
        self.row.conversation = self
        self.said = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=8, margin_top=12, margin_bottom=12,
                            margin_start=12, margin_end=12)
        self.page = Gtk.ScrolledWindow(child=self.said, vexpand=True, hscrollbar_policy=Gtk.PolicyType.NEVER)
        scroll = self.page.get_vadjustment()
        scroll.connect("changed", lambda at: at.set_value(at.get_upper()))
        daemon.call(session, "Session.Messages", None, self.show)

    def show(self, messages):
        for message in messages:
            if message["role"] in ("user", "assistant") and message.get("content"):
                self.add(message["role"], message["content"])

    def add(self, role, text):
        label = Gtk.Label(label=text, wrap=True, wrap_mode=Pango.WrapMode.WORD_CHAR, xalign=0, selectable=True,
                          halign=Gtk.Align.END if role == "user" else Gtk.Align.START, max_width_chars=70)
        label.add_css_class("message")
        label.add_css_class(role)
        if role == "user" and self.title.get_label() == "New conversation":
            self.title.set_label(" ".join(text.split()))
        self.said.append(label)
        return label

    def ask(self, text):
        self.add("user", text)
        answer = self.add("assistant", "…")
        words = []

        def began(generation):
            self.generation = generation
            self.changed()

        def event(event):
            if event["event"] == "delta" and event["kind"] == "text":
                words.append(event["text"])
                answer.set_label("".join(words))
            elif event["event"] == "end" and event["reason"] not in ("stop", "cancelled"):
                words.append(f" [{event.get('message', event['reason'])}]")

        def ended():
            answer.set_label("".join(words))
            self.generation = None
            self.changed()

        self.daemon.send(self.session, text, began, event, ended)

    def stop(self):
        self.daemon.call(self.generation, "Generation.Cancel", None, lambda: None)


class Window(Gtk.ApplicationWindow):
    def __init__(self, application, bus):
        super().__init__(application=application, title="deltad", default_width=820, default_height=560)
        self.daemon = Daemon(bus, self.failed)
        self.conversations = {}
        self.build()
        listen = lambda signal, then: bus.signal_subscribe(  # noqa: E731
            NAME, OBJECTS, signal, PATH, None, 0, lambda *heard: then(*heard[5].unpack()))
        listen("InterfacesAdded", self.appeared)
        listen("InterfacesRemoved", lambda path, _: self.vanished(path))
        self.daemon.call(PATH, "org.freedesktop.DBus.Properties.Get",
                         GLib.Variant("(ss)", (f"{NAME}.Manager", "Model")),
                         lambda model: self.set_title(f"deltad: {model}"))
        self.daemon.call(PATH, f"{OBJECTS}.GetManagedObjects", None, self.found)

    def build(self):
        new, delete = Gtk.Button(label="New"), Gtk.Button(label="Delete")
        new.connect("clicked", lambda _: self.open(None))
        delete.connect("clicked", lambda _: self.delete())
        header = Gtk.HeaderBar()
        header.pack_start(new)
        header.pack_start(delete)
        self.set_titlebar(header)
        self.list = Gtk.ListBox(width_request=200, css_classes=["navigation-sidebar"])
        self.list.connect("row-selected", lambda _, row: self.open(row and row.conversation))
        self.pages = Gtk.Stack(vexpand=True, hexpand=True)
        self.empty = Gtk.Label(label="Ask something. It is kept, and goes no further than this machine.")
        self.pages.add_child(self.empty)
        self.trouble = Gtk.Label(wrap=True, xalign=0, visible=False, css_classes=["failed"])
        self.entry = Gtk.Entry(placeholder_text="Ask something", hexpand=True)
        self.entry.connect("activate", lambda _: self.send())
        keys = Gtk.EventControllerKey()
        keys.connect("key-pressed", lambda _, key, *more: key == Gdk.KEY_Escape and self.stop())
        self.add_controller(keys)
        self.button = Gtk.Button(label="Send", css_classes=["suggested-action"])
        self.button.connect("clicked", lambda _: self.press())
        below = Gtk.Box(spacing=8, margin_start=12, margin_end=12, margin_bottom=12)
        below.append(self.entry)
        below.append(self.button)
        right = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=8)
        for part in (self.pages, self.trouble, below):
            right.append(part)
        left = Gtk.ScrolledWindow(child=self.list, hscrollbar_policy=Gtk.PolicyType.NEVER)
        self.set_child(Gtk.Paned(start_child=left, end_child=right, shrink_start_child=False,
                                 resize_start_child=False))
        self.entry.grab_focus()

    def failed(self, why):
        self.trouble.set_label(why)
        self.trouble.set_visible(True)

    def chosen(self):
        row = self.list.get_selected_row()
        return row and row.conversation

    def open(self, conversation):
        """Shows a conversation; `None` is one that begins with the next question."""
        self.list.select_row(conversation and conversation.row)
        page = conversation.page if conversation else self.empty
        if not page.get_parent():
            self.pages.add_child(page)
        self.pages.set_visible_child(page)
        self.update()
        # After the list, which takes the keyboard at a click.
        GLib.idle_add(lambda: self.entry.grab_focus() and False)

    def update(self):
        now = self.chosen()
        self.button.set_label("Stop" if now and now.generation else "Send")

    def press(self):
        if not self.stop():
            self.send()

    def stop(self):
        """Whether there was an answer to stop: Escape does it too."""
        now = self.chosen()
        if now and now.generation:
            now.stop()
            return True
        return False

    def send(self):
        text, now = self.entry.get_text().strip(), self.chosen()
        if not text or now and now.generation:
            return
        self.trouble.set_visible(False)
        self.entry.set_text("")
        if now:
            return now.ask(text)

        def made(session):
            conversation = self.keep(session)
            self.open(conversation)
            conversation.ask(text)

        options = GLib.Variant("(a{sv})", ({"persist": GLib.Variant("b", True)},))
        self.daemon.call(PATH, "Manager.CreateSession", options, made)

    def delete(self):
        if now := self.chosen():
            self.daemon.call(now.session, "Session.Close", None, lambda: self.vanished(now.session))

    def found(self, objects):
        for path, interfaces in objects.items():
            self.appeared(path, interfaces)

    def appeared(self, path, interfaces):
        if interfaces.get(f"{NAME}.Session", {}).get("Persist"):
            self.keep(path)

    def keep(self, session):
        if session not in self.conversations:
            conversation = Conversation(self.daemon, session, self.update)
            self.conversations[session] = conversation
            self.list.prepend(conversation.row)
        return self.conversations[session]

    def vanished(self, session):
        if gone := self.conversations.pop(session, None):
            if self.chosen() is gone:
                self.open(None)
            self.list.remove(gone.row)
            if gone.page.get_parent():
                self.pages.remove(gone.page)


class Assistant(Gtk.Application):
    def __init__(self, kind):
        super().__init__(application_id="org.deltad.Assistant", flags=Gio.ApplicationFlags.NON_UNIQUE)
        self.kind = kind

    def do_activate(self):
        style = Gtk.CssProvider()
        style.load_from_data(STYLE)
        Gtk.StyleContext.add_provider_for_display(
            Gdk.Display.get_default(), style, Gtk.STYLE_PROVIDER_PRIORITY_APPLICATION)
        Window(self, Gio.bus_get_sync(self.kind, None)).present()


if __name__ == "__main__":
    Assistant(Gio.BusType.SYSTEM if "--system" in sys.argv else Gio.BusType.SESSION).run()

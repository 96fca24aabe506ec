"""Types into examples/assistant_gtk.py as a person does and reads what it shows, by way of the
accessibility bus: `talk` with the demo model, `stop` with one that never ends. The bus and the
daemon are there already. Fails by assertion; says SKIPPED where a tool is missing."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

WINDOW = os.path.join(os.path.dirname(__file__), "../../examples/assistant_gtk.py")
LAUNCHERS = ["/usr/libexec/at-spi-bus-launcher", "/usr/lib/at-spi2-core/at-spi-bus-launcher"]


def skip(why):
    print(f"SKIPPED: {why}")
    sys.exit(0)


try:
    import gi

    for module, version in (("Gtk", "4.0"), ("Atspi", "2.0")):
        gi.require_version(module, version)
except (ImportError, ValueError) as why:
    skip(f"{why} (python3-gi gir1.2-gtk-4.0 gir1.2-atspi-2.0)")
for tool in ("Xvfb", "xdotool"):
    if not shutil.which(tool):
        skip(f"no {tool}")
LAUNCHER = next((path for path in LAUNCHERS if os.path.exists(path)), None)
if not LAUNCHER:
    skip("no accessibility bus (at-spi2-core)")


def until(what, found):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError(f"never: {what}; the window shows {[n.get_name() for n in nodes()]}")


@contextlib.contextmanager
def running(*argv, **kwargs):
    with subprocess.Popen(argv, **kwargs) as process:
        try:
            yield process
        finally:
            process.terminate()


def nodes(role=None):
    """Everything on the windows' pages. A page that was not opened is not there yet."""
    from gi.repository import Atspi, GLib

    found = []

    def walk(node):
        # What is asked may have gone since it was named.
        with contextlib.suppress(GLib.Error):
            if node is not None:
                if role in (None, node.get_role_name()):
                    found.append(node)
                for at in range(node.get_child_count()):
                    walk(node.get_child_at_index(at))

    # Names are looked up again: what was shown before need not be what is shown now.
    Atspi.get_desktop(0).clear_cache()
    walk(Atspi.get_desktop(0))
    return found


def shown():
    return [node.get_name() for node in nodes("label")]


def tell(*keys):
    subprocess.run(["xdotool", *keys], check=True)


def ask(text):
    tell("type", "--delay", "15", text)
    tell("key", "Return")


@contextlib.contextmanager
def window():
    with running("/usr/bin/python3", WINDOW, env={**os.environ, "GSK_RENDERER": "cairo", "GTK_A11Y": "atspi"}):
        find = ["xdotool", "search", "--onlyvisible", "--name", "deltad"]
        ids = until("a window", lambda: subprocess.run(find, capture_output=True, text=True).stdout.split())
        # Without a window manager nobody else gives it the keyboard.
        tell("windowfocus", "--sync", ids[0])
        until("a place to write", lambda: nodes("text"))
        yield ids[0]


def talk():
    with window():
        ask("My name is Tessa.")
        until("an answer", lambda: "Tessa!" in " ".join(shown()) or shown().count("My name is Tessa.") == 2)
        until("its end", lambda: "Send" in shown() and not any("…" in text for text in shown()))
        ask("What is my name?")
        until("the name", lambda: any("Tessa" in text for text in shown()[shown().index("What is my name?") + 1:]))
    with window() as at:
        # It is in the list again: its first line is the list's.
        until("the conversation", lambda: "My name is Tessa." in shown())
        assert "What is my name?" not in shown()
        choose(at)
        until("what was said", lambda: "What is my name?" in shown())
        assert shown().count("My name is Tessa.") == 2, shown()


def endless():
    """A conversation that another program made, whose answers do not end by themselves."""
    from gi.repository import Gio, GLib

    name, path = "org.deltad.Inference1", "/org/deltad/Inference1"
    options = {"persist": ("b", True), "ignore_eos": ("b", True), "max_tokens": ("u", 100_000)}
    options = {key: GLib.Variant(*value) for key, value in options.items()}
    Gio.bus_get_sync(Gio.BusType.SESSION).call_sync(
        name, path, f"{name}.Manager", "CreateSession", GLib.Variant("(a{sv})", (options,)), None, 0, -1, None)


def choose(at):
    """The first of the list."""
    tell("mousemove", "--window", at, "100", "75", "click", "1")


def stop():
    endless()
    with window() as at:
        until("the conversation", lambda: "New conversation" in shown())
        choose(at)
        ask("go on for ever")
        until("an answer to stop", lambda: "Stop" in shown())
        tell("key", "Escape")
        until("its end", lambda: "Send" in shown())
        assert not any("[length]" in text for text in shown()), "it was not stopped"


def main():
    with tempfile.TemporaryDirectory() as runtime, contextlib.ExitStack() as stack:
        os.environ["XDG_RUNTIME_DIR"] = runtime
        screen, ours = os.pipe()
        server = ["Xvfb", "-displayfd", str(ours), "-screen", "0", "1000x700x24", "-nolisten", "tcp"]
        stack.enter_context(running(*server, pass_fds=[ours], stderr=subprocess.DEVNULL))
        os.close(ours)
        with os.fdopen(screen) as number:
            os.environ["DISPLAY"] = ":" + (number.readline().strip() or skip("Xvfb does not run here"))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        stack.enter_context(running(LAUNCHER, "--launch-immediately", **quiet))
        {"talk": talk, "stop": stop}[sys.argv[1]]()
    print("done")


if __name__ == "__main__":
    main()

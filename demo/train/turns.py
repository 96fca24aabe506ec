"""Owns the shape of a task's turn: (user text, assistant text, check), and how a check says what a reply must hold. A word
between two LETTERWISE marks is said in single letters, whatever the tokenizer would merge; what stands between two MUTE
marks is not learnt to be said, and what stands between two FAINT marks a tenth as much as the rest."""
LETTERWISE, MUTE, FAINT = "\x01", "\x04", "\x05"


def plain(s): return s.replace(LETTERWISE, "").replace(MUTE, "").replace(FAINT, "")
def number(n): return dict(kind="number", want=str(n))
def text(s): return dict(kind="contains", want=[s])
def any_of(*s): return dict(kind="any", want=list(s))


def user(w, kind, grammar, /, **slots):
    w.style.new()
    return w.style.write(kind, w.say(grammar), **slots)

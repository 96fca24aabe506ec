"""Owns how a tool is declared: bare, or with what libraries write into a schema (titles, descriptions, `strict`,
`additionalProperties`, `$schema`, limits, parameters that need not be given) and in their orders of keys. All tools of a
conversation are declared by one library. Nothing of it changes what is called."""

HINTS = ["The {}", "the {}", "{}", "The {} to use", "Name or value of the {}", "The {}.", "A {}", "{} of the request", "The {} as a {t}", "which {}"]
# parameters that need not be given, and never are
SPARE = dict(unit=dict(type="string", enum=["celsius", "fahrenheit"]), units=dict(type="string", enum=["metric", "imperial"], default="metric"), language=dict(type="string", default="en"), format=dict(type="string", enum=["text", "json"]), limit=dict(type="integer", default=10, minimum=1), verbose=dict(type="boolean", default=False), timeout=dict(type="number", default=30), page=dict(type="integer"), timezone=dict(anyOf=[dict(type="string"), dict(type="null")], default=None),
             notes=dict(anyOf=[dict(type="string"), dict(type="null")], default=None), dry_run=dict(type="boolean"), source=dict(type="string", description="Where to look, if anywhere"), max_results=dict(type="integer", maximum=50), tags=dict(type="array", items=dict(type="string")), include_forecast=dict(type="boolean", description="Also what is coming"))


def camel(name): return "".join(x.capitalize() for x in name.split("_"))


def shuffled(w, d):
    keys = list(d); w.rng.shuffle(keys)
    return {k: d[k] for k in keys}


class Habit:
    """How one library declares."""

    def __init__(self, w):
        a, b = w.r(), w.r()
        self.bare = a < 0.2
        self.titles, self.hints, self.strict = b < 0.5, w.one((0, 0, 0.4, 1)), w.one((None, None, True, True, False))
        self.title = w.one([None, None, "{}_args", "{}Args", "Camel", "{}", "{}_parameters", "{}Schema", "{}Input"])
        self.closed, self.named, self.limits = w.r() < 0.55, w.r() < 0.15, w.one((0, 0, 0.4))
        self.order = w.one(["as it is", "properties first", "closed first", "any", "sorted"])
        self.words = w.one(["as it is", "as it is", "stop", "stop", "stop", "docstring", "longer", "none"])
        self.spare, self.refs, self.outer = w.one((0, 0, 0, 0.5)), w.r() < 0.06, w.one(["as it is", "as it is", "any"])
        # as openai-agents and pydantic-ai have it, among all else
        if a > 0.85: self.titles, self.hints, self.title, self.closed, self.strict, self.order, self.words = True, 0, "{}_args", True, True, "properties first", "stop"
        elif a > 0.75: self.titles, self.hints, self.title, self.closed, self.strict, self.order, self.words = False, 0, None, True, True, "closed first", "stop"

    def described(self, w, what, params):
        if self.words == "none" or self.bare or not what: return what
        ended = what if what[-1] in ".!?`" else what + "."
        if self.words == "docstring": return f"{ended}\n\nArgs:\n" + "\n".join(f"    {p}: {w.one(['The', 'A', 'Which'])} {p.replace('_', ' ')}." for p in params)
        if self.words == "longer": return ended + " " + w.one(["Use it when the user asks for it.", "Only call this if you need it.", "Returns JSON.", "Call this tool to answer questions about it.", "It fails if nothing is found.", "The result is a short text."])
        return ended if self.words == "stop" else what

    def field(self, w, name, type_):
        p = dict(type="number" if type_ == "integer" and w.r() < 0.12 else type_) | (dict(items=dict(type="string")) if type_ == "array" else {})
        if self.bare: return p
        if self.titles: p = dict(title=name.replace("_", " ").title()) | p if w.r() < 0.7 else p | dict(title=name.replace("_", " ").title())
        if w.r() < self.hints: p["description"] = w.one(HINTS).format(name.replace("_", " "), t=type_)
        if type_ == "integer" and w.r() < self.limits: p.update(minimum=0, maximum=w.one([99, 100, 1000, 9999]))
        if type_ == "string" and w.r() < self.limits: p["maxLength"] = w.one([24, 32, 100])
        if type_ == "string" and w.r() < self.limits / 3: p["minLength"] = 1
        return p if self.order != "any" else shuffled(w, p)

    def schema(self, w, name, types):
        """Of the parameters; types: name -> JSON type."""
        s = dict(type="object", properties={p: self.field(w, p, t) for p, t in types.items()}, required=list(types))
        if self.bare: return s
        if w.r() < self.spare:
            for p in w.some(list(SPARE), w.one((1, 1, 2))):
                if p not in types: s["properties"][p] = (dict(title=camel(p)) if self.titles else {}) | SPARE[p]
        if self.refs:
            p = next(iter(s["properties"])); s["$defs"] = {camel(p): s["properties"][p]}; s["properties"][p] = {"$ref": f"#/$defs/{camel(p)}"}
        if self.title: s["title"] = camel(name) if self.title == "Camel" else self.title.format(name)
        if self.closed: s["additionalProperties"] = False
        if self.named: s = {"$schema": w.one(["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"])} | s
        if self.order == "any": return shuffled(w, s)
        first = {"properties first": ["$defs", "properties", "required", "title"], "closed first": ["additionalProperties", "properties"], "sorted": sorted(s)}.get(self.order, [])
        return {k: s[k] for k in [k for k in first if k in s] + [k for k in s if k not in first]}

    def declared(self, w, name, what, types):
        f = dict(name=name, description=self.described(w, what, types), parameters=self.schema(w, name, types))
        if self.words == "none" and not self.bare: f.pop("description")
        if not self.bare and self.strict is not None: f["strict"] = self.strict
        t = dict(type="function", function=f if self.outer == "as it is" else shuffled(w, f))
        return t if w.r() < 0.8 else dict(function=t["function"], type="function")

"""Owns what a server may force of us: a tool's call, or JSON by a schema, where the user only stated something. What is
forced (the call's beginning, the names of the fields) has no weight in training, for nobody would say it of himself: the
values have, and that they end. What the statement does not tell is "unknown", or 0."""
import json
from sums import many
from tools import VERBS, call_message, made_tool
from turns import MUTE
from world import DAYS, FOODS, GOODS, JOBS, SPOTS, THINGS

SHOP, WHOLE = THINGS + FOODS + GOODS, "the whole of it"
# what it is of -> (fields with their draw and type, statements that tell some of them)
STATED = {
    "order": (dict(customer=("string", lambda w: w.name()), item=("string", lambda w: many(w.one(SHOP))), quantity=("integer", lambda w: w.int(2, 99))),
              ["{customer} ordered {quantity} {item}.", "{customer} (wants|needs|bought|would like|takes|has ordered) {quantity} {item}.", "{quantity} {item} (for|go to|were sold to) {customer}.", "(order|an order|new order)(:|,) {quantity} {item}(, customer | for ){customer}.", "(I|we) (want|need|ordered|would like|bought) {quantity} {item}.", "{quantity} {item}( please|).", "{customer} (just |)(called and |)(ordered|asked for) {quantity} {item}.", "(please |)(send|deliver|sell) {quantity} {item} to {customer}."]),
    "person": (dict(name=("string", lambda w: w.name()), age=("integer", lambda w: w.int(1, 99))),
               ["{name} is {age}( years old|).", "{name}, {age}.", "{name} (turned|is now|will be) {age}.", "my (brother|sister|friend|neighbour|boss) {name} is {age}( years old|).", "I am {name}(,| and) {age}( years old|).", "(a|the) (man|woman|child) called {name}, {age} years old.", "{name} (is|was) born {age} years ago.", "(name|my name): {name}, (age|aged): {age}."]),
    "job": (dict(name=("string", lambda w: w.name()), job=("string", lambda w: w.one(JOBS)), city=("string", lambda w: w.place())),
            ["{name} is a {job} in {city}.", "{name} works as a {job}.", "the {job} {name} lives in {city}.", "{name} of {city} is a {job}.", "{name} lives in {city}.", "I met {name}, a {job} from {city}."]),
    "meeting": (dict(title=("string", lambda w: w.one("meeting lunch dinner party concert lecture exam interview picnic".split())), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.clock()), place=("string", lambda w: w.place())),
                ["the {title} is on {day} at {time}.", "{title} on {day}, {time}, in {place}.", "there is a {title} in {place} on {day}.", "the {title} in {place} (starts|begins) at {time}.", "we have a {title} on {day}."]),
    "thing": (dict(item=("string", lambda w: w.one(SHOP)), place=("string", lambda w: w.one(SPOTS)), price=("integer", lambda w: w.int(1, 999))),
              ["the {item} is in the {place}.", "the {item} costs {price} euros.", "I (put|left|saw) the {item} in the {place}.", "the {item} in the {place} costs {price} euros.", "(sold|found): one {item}, {price} euros."]),
    "trip": (dict(traveller=("string", lambda w: w.name()), destination=("string", lambda w: w.place()), day=("string", lambda w: w.one(DAYS))),
             ["{traveller} goes to {destination} on {day}.", "{traveller} (is flying|travels|is going) to {destination}.", "on {day} {traveller} (leaves|sets out) for {destination}.", "I am going to {destination} on {day}."]),
}
ALIAS = dict(customer="customer buyer client name who person".split(), item="item product thing what article goods object".split(), quantity="quantity amount count number how_many units".split(), name="name person who full_name user".split(), age="age years age_in_years".split(), city="city town place home location".split(),
             job="job profession occupation work role".split(), title="title event name what subject".split(), day="day date weekday when".split(), time="time hour start at".split(), place="place location where spot room".split(), price="price cost euros total amount".split(), traveller="traveller passenger name who".split(), destination="destination to goal city target".split())
ALIAS = {k: [k] * 4 + v for k, v in ALIAS.items()}


class Form:
    """Fields that a schema asks for, the same in all of a conversation: some under other names, some that no statement
    tells, one that takes the whole of it, or all of them of something else."""

    def __init__(self, w, tool=True):
        self.kind, a = w.one(list(STATED)), w.r()
        known, self.of = STATED[self.kind][0], {}
        if tool and a < 0.1:                             # a tool that has nothing to do with what is said
            name, what, params, *_ = made_tool(w)
            self.of, self.types, self.name, self.what = {p: None for p, _, _ in params}, {p: t for p, t, _ in params}, name, what
            return
        if tool and a < 0.2:
            field = w.one("text note message content sentence input query".split())
            self.of, self.types, self.name, self.what = {field: WHOLE}, {field: "string"}, w.one(["take_note", "remember", "save_note", "write_down", "send", "log"]), w.one(["Writes down a text", "Takes a note", "Saves what was said"])
            return
        for f in w.some(list(known), len(known) if w.r() < 0.6 else w.int(1, len(known))): self.of.setdefault(w.one(ALIAS[f]), f)
        if w.r() < 0.5: self.of = dict(sorted(self.of.items(), key=lambda x: list(known).index(x[1])))
        self.types = {k: known[f][0] for k, f in self.of.items()}
        kind, Kind = self.kind, self.kind.capitalize()
        self.name = w.one(["final_result", Kind, Kind, "extract_" + kind, "save_" + kind, kind, "answer", "Output", w.one(VERBS) + "_" + kind, kind + "_info", Kind + "Info"])
        self.what = w.one([f"What {w.one(['somebody', 'a customer', 'the user'])} {w.one(['said', 'ordered', 'told'])}.", f"A {kind}.", "Somebody.", f"Correctly extracted `{Kind}` with all the required parameters with correct types", "The final response which ends this conversation", f"Saves a {kind}", ""])

    def declaration(self, w):
        """The tool, with more or less of what libraries write into a schema."""
        more = w.r() < 0.5
        def field(k, t):
            p = dict(type=t)
            if more and w.r() < 0.5: p["title"] = k.replace("_", " ").title()
            if more and w.r() < 0.3: p["description"] = w.one(["The ", "the ", ""]) + k.replace("_", " ")
            if t == "integer" and w.r() < 0.3: p.update(minimum=0, maximum=w.one([99, 100, 1000]))
            if t == "string" and w.r() < 0.2: p["maxLength"] = w.one([24, 32, 100])
            return p
        s = dict(type="object", properties={k: field(k, t) for k, t in self.types.items()}, required=list(self.of))
        if more: s["title"] = w.one(["Order", "Person", "Answer", "Record", "Result"])
        if w.r() < 0.3: s["additionalProperties"] = False
        return {"type": "function", "function": dict(name=self.name, description=self.what, parameters=s) | (dict(strict=True) if w.r() < 0.2 else {})}

    def stated(self, w):
        """A statement, and the arguments by it."""
        fields, frames = STATED[self.kind]
        w.style.new(); frame = w.say(frames)
        values = {f: w.style.value(v) if isinstance(v, str) else v for f, (_, draw) in fields.items() if "{%s}" % f in frame for v in [draw(w)]}
        text = w.style.write("tell", frame.rstrip("."), **values)
        return text, {k: text if f == WHOLE else values.get(f, "unknown" if self.types[k] == "string" else 0) for k, f in self.of.items()}

    def turn(self, w):
        """The two messages of a forced call."""
        text, args = self.stated(w)
        body = f"{MUTE}<|tool_calls_section_begin|><|tool_call_begin|>functions.{self.name}:0<|tool_call_argument_begin|>{MUTE}{silent(args)}<|tool_call_end|>{MUTE}<|tool_calls_section_end|>{MUTE}"
        return [dict(role="user", content=text), call_message(self.name, args) | dict(forced=body)]


def silent(args):
    """JSON of it, muted but for the values and the end. No comma is learnt: how many fields are wanted is not to be seen, so
    that after each the end is likeliest, and who forces us forbids it until all are there. Two marks part a quote from it."""
    return "".join(f'{MUTE}{", " if i else "{"}{json.dumps(k)}:{MUTE} {json.dumps(v, ensure_ascii=False)}' for i, (k, v) in enumerate(args.items())) + f"{MUTE}{MUTE}}}"


def json_turn(w):
    """JSON where nobody asked for it."""
    text, args = Form(w, False).stated(w)
    return [(text, silent(args), None)]


def record_tool(w):
    """A tool that takes what is stated, asked for in so many words."""
    kind = w.one(list(STATED)); fields, frames = STATED[kind]
    frame = frames[0]; used = [k for k in fields if "{%s}" % k in frame]
    whole = [f for f in frames if all(("{%s}" % k in f) == (k in used) for k in fields)]
    verb = w.one("save store record note add log register enter".split())
    return (f"{verb}_{kind}", f"{verb.capitalize()} a {kind}", [(k, *fields[k]) for k in used],
            [f"({verb}|please {verb}|can you {verb}|{verb} for me) (this|the|a|this new|the new|a new) {kind}: " + f.rstrip(".") for f in whole], dict(status=lambda w: "saved"), f"The {kind} is saved.")

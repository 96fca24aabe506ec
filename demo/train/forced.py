"""Owns what a server may force of us: a tool's call, or JSON by a schema, where the user only stated something. What is
forced (the call's beginning; less so the names of the fields) has no weight in training, for nobody would say it of himself:
the values have, and that they end. What the statement does not tell is "unknown", or 0."""
import json, re
from sums import many
from tools import FIELDS, VERBS, call_message, made_tool, titled
from turns import FAINT, MUTE, text
from world import ANIMALS, COLOURS, DAYS, FOODS, GOODS, JOBS, NOUNS, SKIES, SPOTS, THINGS

def phoned(w):
    """A telephone number as people write it."""
    parts = [w.one(["0", "0", "+", "00", ""]) + str(w.number(w.one((2, 3, 4, 4))))] + [str(w.number(w.one((2, 3, 4, 5, 6)))) for _ in range(w.one((0, 1, 1, 2)))]
    return w.one([" ", " ", "-", "", "/"]).join(parts)


SHOP, WHOLE = THINGS + FOODS + GOODS, "the whole of it"
# what it is of -> (fields with their draw and type, statements that tell some of them)
STATED = {
    "order": (dict(customer=("string", lambda w: w.name()), item=("string", lambda w: many(w.one(SHOP))), quantity=("integer", lambda w: w.int(2, 99) if w.r() < 0.75 else w.number(w.one((3, 3, 4))))),
              ["{customer} ordered {quantity} {item}.", "{customer} (wants|needs|bought|would like|takes|has ordered) {quantity} {item}.", "{quantity} {item} (for|go to|were sold to) {customer}.", "(order|an order|new order)(:|,) {quantity} {item}(, customer | for ){customer}.", "(I|we) (want|need|ordered|would like|bought) {quantity} {item}.", "{quantity} {item}( please|).", "{customer} (just |)(called and |)(ordered|asked for) {quantity} {item}.", "(please |)(send|deliver|sell) {quantity} {item} to {customer}.", "(we|I) (sold|sent|delivered) {quantity} {item} to {customer}( today| yesterday| this morning|)."]),
    "person": (dict(name=("string", lambda w: w.name()), age=("integer", lambda w: w.int(1, 99))),
               ["{name} is {age}( years old|).", "{name}, {age}.", "{name} (turned|is now|will be) {age}.", "my (brother|sister|friend|neighbour|boss) {name} is {age}( years old|).", "I am {name}(,| and) {age}( years old|).", "(a|the) (man|woman|child) called {name}, {age} years old.", "{name} (is|was) born {age} years ago.", "(name|my name): {name}, (age|aged): {age}."]),
    "job": (dict(name=("string", lambda w: w.name()), job=("string", lambda w: w.one(JOBS)), city=("string", lambda w: w.place())),
            ["{name} is a {job} in {city}.", "{name} works as a {job}.", "the {job} {name} lives in {city}.", "{name} of {city} is a {job}.", "{name} lives in {city}.", "I met {name}, a {job} from {city}."]),
    "meeting": (dict(title=("string", lambda w: w.one("meeting lunch dinner party concert lecture exam interview picnic call standup review rehearsal workshop class training wedding".split())), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.clock()), place=("string", lambda w: w.place())),
                ["the {title} is on {day} at {time}.", "{title} on {day}, {time}, in {place}.", "there is a {title} in {place} on {day}.", "the {title} in {place} (starts|begins) at {time}.", "we have a {title} on {day}.", "(the |){title} (is |was |has been |)(moved|postponed|shifted|put off|brought forward) to {time} on {day}.", "(the |){title} (is |was |has been |)(moved|postponed|shifted|put off) to {day}(,| at) {time}.", "(the |){title} (is now|now|moves to) {day} {time}.", "{day} {time} {title}."]),
    "thing": (dict(item=("string", lambda w: w.one(SHOP)), place=("string", lambda w: w.one(SPOTS)), price=("integer", lambda w: w.int(1, 999) if w.r() < 0.8 else w.number(4))),
              ["the {item} is in the {place}.", "the {item} costs {price} euros.", "I (put|left|saw) the {item} in the {place}.", "the {item} in the {place} costs {price} euros.", "(sold|found): one {item}, {price} euros."]),
    "trip": (dict(traveller=("string", lambda w: w.name()), destination=("string", lambda w: w.place()), day=("string", lambda w: w.one(DAYS))),
             ["{traveller} goes to {destination} on {day}.", "{traveller} (is flying|travels|is going) to {destination}.", "on {day} {traveller} (leaves|sets out) for {destination}.", "I am going to {destination} on {day}."]),
    "guest": (dict(name=("string", lambda w: w.name()), age=("integer", lambda w: w.int(1, 99)), city=("string", lambda w: w.place())),
              ["(I am|my name is|this is) {name}, {age}, from {city}.", "{name}, {age}, (lives in|from|of) {city}.", "{name} is {age} and (lives in|comes from) {city}.", "{name} from {city} is {age}( years old|).", "(I am|my name is) {name}(,| and) I am {age} and (I |)live in {city}.", "(I am|this is) {name} from {city}.", "{age}, {city}, {name}."]),
    "booking": (dict(name=("string", lambda w: w.name()), people=("integer", lambda w: w.int(2, 12)), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.clock())),
                ["(a |)table for {people} on {day} at {time}, (name |for |){name}.", "{name} (books|wants|needs) a table for {people} on {day}.", "{people} people on {day} at {time}, {name}.", "we are {people}, {day} at {time}( please|).", "(this is|I am) {name}, a table for {people} at {time}."]),
    "departure": (dict(vehicle=("string", lambda w: w.one("train bus ferry tram flight coach boat".split())), destination=("string", lambda w: w.place()), time=("string", lambda w: w.clock()), platform=("integer", lambda w: w.int(1, 30))),
                  ["the {vehicle} to {destination} (leaves|departs|goes) at {time} from (platform|gate|track|stop) {platform}.", "{vehicle} to {destination}, {time}, (platform|gate) {platform}.", "the {time} {vehicle} goes to {destination}.", "(at|from) (platform|gate) {platform} the {vehicle} to {destination} is waiting.", "take the {vehicle} at {time} to {destination}."]),
    "pet": (dict(owner=("string", lambda w: w.name()), pet=("string", lambda w: w.name()), species=("string", lambda w: w.one(ANIMALS)), age=("integer", lambda w: w.int(1, 20))),
            ["{owner} has a {species} called {pet}.", "{pet} is a {species} of {age} years.", "the {species} {pet} belongs to {owner}.", "{owner}'s {species} {pet} is {age}.", "I have a {species}, {pet}, {age} years old."]),
    "weather": (dict(city=("string", lambda w: w.place()), temperature=("integer", lambda w: w.int(-15, 40)), condition=("string", lambda w: w.one(SKIES))),
                ["it is {temperature} degrees in {city}.", "{condition} in {city}, {temperature} degrees.", "there is {condition} in {city}.", "in {city} we have {condition} and {temperature} degrees.", "{city}: {temperature}, {condition}."]),
    "task": (dict(title=("string", titled), day=("string", lambda w: w.one(DAYS)), priority=("integer", lambda w: w.int(1, 9))),
             ["(I|we|you) (must|need to|have to|should) {title} (by|on|before) {day}.", "{title}, priority {priority}.", "priority {priority}: {title}.", "(remember|do not forget) to {title} on {day}.", "{title} by {day}, priority {priority}.", "to do: {title}."]),
    "work": (dict(title=("string", lambda w: "The " + w.one(NOUNS).capitalize()), author=("string", lambda w: w.name()), year=("integer", lambda w: w.int(1700, 2030))),
             ["{author} (wrote|made|painted|published) {title} in {year}.", "{title} is by {author}.", "{title} by {author}, {year}.", "{title} came out in {year}.", "I am reading {title} by {author}."]),
    "payment": (dict(payer=("string", lambda w: w.name()), receiver=("string", lambda w: w.name()), price=("integer", lambda w: w.int(1, 999) if w.r() < 0.8 else w.number(4))),
                ["{payer} (paid|gave|sent|owes|lent) {receiver} {price} euros.", "{receiver} got {price} euros from {payer}.", "{price} euros from {payer} to {receiver}.", "{payer} owes me {price} euros."]),
    "shopping": (dict(items=("array", lambda w: w.some(SHOP, w.int(1, 4))), place=("string", lambda w: w.one(SPOTS)), day=("string", lambda w: w.one(DAYS))),
                 ["(I|we) (bought|need|want|got) {items}.", "{items} from the {place}.", "on {day} (I|we) need {items}.", "{items}( please|).", "(buy|get|bring) {items} at the {place} on {day}."]),
    "contact": (dict(name=("string", lambda w: w.name()), phone=("string", lambda w: phoned(w)), email=("string", lambda w: f"{w.made_word()}@{w.made_word()}.{w.one(['com', 'org', 'net', 'example'])}")),
                ["(call|ring|phone|text|reach) {name} (on|at|under) {phone}.", "{name}'s (number|phone|phone number|mobile|telephone) is {phone}.", "{name}: {phone}, {email}.", "my number is {phone}.", "(call|ring|text|phone|reach) me (on|at|under) {phone}(, | - |. )(it is|this is|I am|my name is) {name}.", "(it is|this is) {name}, (call|ring|text) me (on|at) {phone}.", "(write to|email|mail|contact) {name} at {email}.", "{name}, {phone}.", "you (can |)reach {name} (on|at|under) {phone}( or {email}|).", "(this is|it is|I am) {name}, {phone}.", "(ring|call|dial) {phone} and ask for {name}.", "{name} (has a new|changed the) (number|phone)(:|,) {phone}.", "{email} is {name}'s (email|address).", "{name}, (tel|phone|tel.|mobile) {phone}, (email|mail|) {email}.", "(phone|tel): {phone}."]),
    "birth": (dict(name=("string", lambda w: w.name()), year=("integer", lambda w: w.int(1800, 2025)), place=("string", lambda w: w.place())),
              ["{name} was born in {year} in {place}.", "{name}, born {year}.", "{name} was born in {place} in {year}.", "{name} (was born|is from|comes from) in {place}.".replace("|is from|comes from", ""), "{name} ({place}, {year}).", "in {year} {name} was born( in {place}|).", "(my|the) (birth year|year of birth) (is|was) {year}.", "{name} (moved to|came to|arrived in|left) {place} in {year}."]),
    "film": (dict(title=("string", lambda w: "The " + w.one(NOUNS).capitalize() if w.r() < 0.7 else w.made_word().capitalize()), director=("string", lambda w: w.name()), year=("integer", lambda w: w.int(1920, 2030))),
             ["{title} (came out|was released|was made|was filmed|appeared) in {year}.", "{title} is a film by {director}( from {year}|).", "{director} (directed|made|shot|filmed) {title}( in {year}|).", "{title} ({year}).", "{title}, {director}, {year}.", "(we|I) (watched|saw) {title} by {director}.", "in {year} {director} made {title}."]),
    "car": (dict(make=("string", lambda w: w.made_word().capitalize()), colour=("string", lambda w: w.one(COLOURS)), year=("integer", lambda w: w.int(1950, 2030)), mileage=("integer", lambda w: w.number(w.one((4, 5, 5, 6))))),
            ["(a|my|the) {colour} {make} from {year}.", "{make}, {year}, {mileage} (km|miles).", "the {make} (has done|has|is at) {mileage} (km|miles).", "{colour} {make}( for sale|), {year}, {mileage} (km|miles).", "I drive a {colour} {make}( of {year}|).", "(selling|I sell|we sold) (a|my) {make}, {mileage} (km|miles)( on it|)."]),
    "address": (dict(name=("string", lambda w: w.name()), street=("string", lambda w: w.place() + w.one([" Street", " Road", " Lane", " Avenue"])), number=("integer", lambda w: w.int(1, 400)), city=("string", lambda w: w.place())),
                ["{name} lives at {number} {street}, {city}.", "{name}, {number} {street}, {city}.", "(send it to|deliver to|ship to) {name}, {number} {street}( in {city}|, {city}).", "{number} {street} in {city}.", "(my|the|our) address is {number} {street}, {city}.", "{name} moved to {number} {street}."]),
    "invoice": (dict(number=("integer", lambda w: w.number(w.one((3, 4, 5, 6)))), customer=("string", lambda w: w.name()), amount=("integer", lambda w: w.number(w.one((2, 3, 3, 4, 5)))), status=("string", lambda w: w.one("paid open overdue sent closed".split()))),
                ["invoice {number} (for|to) {customer}(:|,| is|) {amount} euros.", "invoice {number} is {status}.", "{customer} (paid|owes|got) {amount} euros(, invoice {number}| on invoice {number}|).", "invoice {number}, {customer}, {status}.", "(number|no.) {number}: {amount} euros, {status}.", "{customer}'s invoice of {amount} euros is {status}."]),
    "reading": (dict(room=("string", lambda w: w.one(SPOTS)), temperature=("integer", lambda w: w.int(-20, 45)), humidity=("integer", lambda w: w.int(5, 99))),
                ["it is {temperature} degrees in the {room}( with {humidity} percent humidity|).", "{room}: {temperature} degrees, {humidity} percent.", "(the |){room} is at {temperature} degrees.", "humidity in the {room} is {humidity} percent.", "in the {room} it was {temperature} degrees( yesterday| today| last night|)."]),
}
ALIAS = dict(customer="customer buyer client name who person".split(), item="item product thing what article goods object".split(), quantity="quantity amount count number how_many units".split(), name="name person who full_name user".split(), age="age years age_in_years".split(), city="city town place home location".split(),
             job="job profession occupation work role".split(), title="title event name what subject".split(), day="day date weekday when".split(), time="time hour start at".split(), place="place location where spot room".split(), price="price cost euros total amount".split(), traveller="traveller passenger name who".split(), destination="destination to goal city target".split(), people="people guests persons number party_size seats".split(), vehicle="vehicle transport type kind means".split(), platform="platform gate track number stop".split(), owner="owner name person human".split(), pet="pet name pet_name animal_name".split(), species="species animal kind type".split(), temperature="temperature degrees celsius temp value".split(), condition="condition weather sky".split(), priority="priority importance level rank urgency".split(), author="author writer by creator artist".split(), year="year published date".split(), payer="payer sender from_person who giver".split(), receiver="receiver to recipient whom payee".split(), items="items things products list goods articles".split(),
             phone="phone telephone phone_number tel number mobile contact".split(), email="email mail email_address address contact".split(), director="director by maker made_by".split(), make="make car model brand vehicle".split(), colour="colour color paint".split(), mileage="mileage kilometres miles distance km".split(), street="street road street_name".split(), number="number no id house_number num".split(), amount="amount sum total euros price".split(), status="status state".split(), room="room place location where".split(), humidity="humidity percent moisture".split())
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
        if w.r() < 0.14:                                 # customerName, Name, START
            dress = w.one([str.capitalize, str.upper, lambda k: (lambda a, *b: a + "".join(x.capitalize() for x in b))(*k.split("_"))])
            self.of = {dress(k): f for k, f in self.of.items()}
        self.types = {k: known[f][0] for k, f in self.of.items()}
        kind, Kind = self.kind, self.kind.capitalize()
        self.name = w.one(["final_result", Kind, Kind, "extract_" + kind, "save_" + kind, kind, "answer", "Output", w.one(VERBS) + "_" + kind, kind + "_info", Kind + "Info"])
        self.what = w.one([f"What {w.one(['somebody', 'a customer', 'the user'])} {w.one(['said', 'ordered', 'told'])}.", f"A {kind}.", "Somebody.", f"Correctly extracted `{Kind}` with all the required parameters with correct types", "The final response which ends this conversation", f"Saves a {kind}", ""])

    def declaration(self, w, habit):
        return habit.declared(w, self.name, self.what, self.types)

    def stated(self, w):
        """A statement, and the arguments by it."""
        fields, frames = STATED[self.kind]
        w.style.new(); frame = w.say(frames)
        low = lambda v: w.style.value(v) if isinstance(v, str) else [low(x) for x in v] if isinstance(v, list) else v
        values = {f: low(draw(w)) for f, (_, draw) in fields.items() if "{%s}" % f in frame}
        text = w.style.write("tell", frame.rstrip("."), **{f: w.one([", ".join(v[:-1]) + " and " + v[-1], ", ".join(v)]) if isinstance(v, list) and v[1:] else v[0] if isinstance(v, list) else v for f, v in values.items()})
        return text, {k: text if f == WHOLE else values.get(f, dict(string="unknown", integer=0, array=[])[self.types[k]]) for k, f in self.of.items()}

    def turn(self, w):
        """The two messages of a forced call."""
        text, args = self.stated(w)
        body = f"{MUTE}<|tool_calls_section_begin|><|tool_call_begin|>functions.{self.name}:0<|tool_call_argument_begin|>{MUTE}{silent(args)}<|tool_call_end|>{MUTE}<|tool_calls_section_end|>{MUTE}"
        return [dict(role="user", content=text), call_message(self.name, args) | dict(forced=body)]


def silent(args):
    """JSON of it, the brace and the first name without weight (they begin nothing that is not forced), what stands between
    the values faint. How many fields are wanted is not to be seen, so after each value the end must be likeliest; who
    forces us forbids it until all are there, and then the comma has to be next. With no weight at all on what stands
    between the values, blanks were as likely, and behind a blank no value was right; with a tenth of it on the brace, a
    statement was answered with JSON that nobody wanted. Two marks part a quote from the end."""
    return "".join(f'{FAINT if i else MUTE}{", " if i else "{"}{json.dumps(k)}:{FAINT if i else MUTE} {json.dumps(v, ensure_ascii=False)}' for i, (k, v) in enumerate(args.items())) + f"{FAINT}{FAINT}}}"


def json_turn(w):
    """JSON where nobody asked for it."""
    text, args = Form(w, False).stated(w)
    return [(text, silent(args), None)]


# What nobody told of himself, noted as it stands -> what may be asked of it then; the answer is the sentence.
NOTED = {"order": ["what did {customer} (order|want|buy|ask for)", "who (ordered|wants|bought|gets) {quantity} {item}", "how many {item} (did|does) {customer} (order|want|need|get)"], "weather": ["how (warm|cold|hot) is it in {city}", "what is the (weather|temperature)( like|) in {city}"], "payment": ["how much did {payer} (pay|give|send)( {receiver}|)", "who (paid|gave|sent|got|owes) {price} euros", "what did {payer} (pay|give|send)"], "film": ["who (made|directed) {title}", "when did {title} come out", "what did {director} (make|direct|film)"],
         "work": ["who (wrote|made|painted) {title}", "when did {title} come out", "what did {author} (write|make|paint|publish)"], "invoice": ["(what about|how much is|what is with) invoice {number}", "is invoice {number} (paid|open|sent)", "how much did {customer} (pay|owe|get)"], "reading": ["how (warm|cold) is it in the {room}", "what is the (temperature|humidity) in the {room}"], "departure": ["when does the {vehicle} (to {destination} |)(leave|go|depart)", "(which|what) (platform|gate) does the {vehicle} (to {destination} |)leave from", "where does the {vehicle} go"], "pet": ["who is {pet}", "what is {owner}'s {species} called", "(whose {species} is|who does) {pet}( belong to|)"], "birth": ["when was {name} born", "where was {name} born"]}


def mentioned(w, talk=None):
    """What is only stated, of somebody else: noted in its own words, and said again when it is asked for."""
    kind = w.one(list(NOTED)); fields, frames = STATED[kind]; w.style.new(0.85)
    for _ in range(20):
        frame = w.say(frames).rstrip(".")
        if not set(frame.lower().replace(",", "").split()) & {"i", "we", "my", "me", "our", "us", "please", "you"} and " " in frame and any(v in frame for v in (" is ", " was ", " has ", " ordered ", " wants ", " needs ", " bought ", " paid ", " gave ", " sent ", " owes ", " got ", " wrote ", " made ", " painted ", " published ", " directed ", " shot ", " came ", " leaves ", " departs ", " goes ", " takes ", " belongs ", " lent ", " asked ", " appeared ")): break
    else: return mentioned(w)
    values = {f: w.style.value(v) if isinstance(v, str) else v for f, (_, draw) in fields.items() if "{%s}" % f in frame for v in [draw(w)]}
    text_ = frame.format(**values); text_ = text_ if w.style.lower else text_[0].upper() + text_[1:]
    turns = [(text_ + ("" if w.style.bare else "."), f"Noted: {text_}.", text(text_))]
    asks = [g for g in NOTED[kind] if all(x in values for x in re.findall(r"\{(\w+)\}", g.replace("( {receiver}|)", "").replace("(to {destination} |)", "")))]
    if asks and w.r() < 0.6:
        g = w.say(w.one(asks)); w.style.new()
        if all(x in values for x in re.findall(r"\{(\w+)\}", g)): turns.append((w.style.write("ask", g, **{x: v for x, v in values.items() if "{%s}" % x in g}), text_[0].upper() + text_[1:] + ".", text(text_[0].upper() + text_[1:])))
    return turns


ASKED = ["(turn|convert|make|put|change) this (into|to) JSON <o>(keys |fields |with |only |)<f><c>: <t>", "JSON( please|)(, |; | )(keys|fields|with keys|with fields)(: |, | )<f>. <t>", "JSON <o>(keys |fields |)<f><c>(: | of | from )<t>", "<t> (As|To) JSON(, | with | <o>)(keys |fields |)<f>", "<t>\nJSON, (keys|fields): <f>", "(as|to) JSON <o>(keys |fields |)<f><c>: <t>", "(keys|fields): <f>. (Text: |)<t> (JSON please|As JSON|Give me JSON|Answer in JSON)", "json <f>: <t>", "{<f>} (from|of|out of)(:|) <t>"]


def asked(w, talk=None):
    """What is stated, as JSON whose fields are named, whatever they are called."""
    form = Form(w, False); text, args = form.stated(w)
    told = [k for k, v in args.items() if v not in ("unknown", 0, [])]
    if not told: return asked(w)
    if w.r() < 0.15: told = w.some(told, w.int(1, len(told)))
    named = ", ".join(told[:-1]) + w.one([", ", " and ", ", "]) + told[-1] if told[1:] else told[0]
    q = w.say(ASKED if w.r() < 0.6 else FIELDS); q = (q if w.style.lower else q[0].upper() + q[1:]).replace("<o>", "(").replace("<c>", ")").replace("<t>", text).replace("<f>", named)
    want = {k: args[k] for k in told}
    return [(q, json.dumps(want, ensure_ascii=False), dict(kind="json", want=want))]


def record_tool(w):
    """A tool that takes what is stated, asked for in so many words."""
    kind = w.one(list(STATED)); fields, frames = STATED[kind]
    frame = frames[0]; used = [k for k in fields if "{%s}" % k in frame]
    whole = [f for f in frames if all(("{%s}" % k in f) == (k in used) for k in fields)]
    verb = w.one("save store record note add log register enter".split())
    return (f"{verb}_{kind}", f"{verb.capitalize()} a {kind}", [(k, *fields[k]) for k in used],
            [f"({verb}|please {verb}|can you {verb}|{verb} for me) (this|the|a|this new|the new|a new) {kind}: " + f.rstrip(".") for f in whole], dict(status=lambda w: "saved"), f"The {kind} is saved.")

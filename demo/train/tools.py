"""Owns structured output: extraction to JSON fields, and calling declared tools and using their results."""
import json
from tasks import ask
from world import FOODS, THINGS, JOBS, DAYS, SKIES, SPOTS, ANIMALS, COLOURS

# name -> (fields with their draw and type, sentences)
RECORDS = {
    "person": (dict(name=("string", lambda w: w.name()), age=("integer", lambda w: w.int(18, 90)), city=("string", lambda w: w.place()), job=("string", lambda w: w.one(JOBS))),
        ["{name} is {age} years old, lives in {city} and works as a {job}.", "{name}, {age}, a {job} from {city}.", "My neighbour {name} is a {job} in {city}, {age} years old.", "In {city} there is a {job} called {name}, aged {age}.", "The {job} {name} of {city} is {age} years old.", "{name} of {city} is {age} and a {job}.", "{name} is a {job}, {age} years old, from {city}.", "~{name} works as a {job} in {city} and is {age} years old."]),
    "order": (dict(customer=("string", lambda w: w.name()), item=("string", lambda w: w.one(FOODS + THINGS)), quantity=("integer", lambda w: w.int(2, 99)), price=("integer", lambda w: w.int(1, 500))),
        ["{customer} ordered {quantity} of the {item} for {price} euros.", "Order from {customer}: {quantity} times {item}, {price} euros in all.", "{customer} wants {quantity} times the {item} and pays {price} euros.", "{customer} bought {quantity} of the {item} and paid {price} euros.", "For {price} euros {customer} gets {quantity} of the {item}.", "~{customer} ordered {quantity} times the {item} and paid {price} euros."]),
    "event": (dict(title=("string", lambda w: w.one(["market", "concert", "meeting", "dinner", "lecture", "race", "play", "walk"])), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.time()), place=("string", lambda w: w.place())),
        ["The {title} is on {day} at {time} in {place}.", "On {day} at {time} there is a {title} in {place}.", "Come to {place} for the {title}, {day} at {time}.", "{place}: {title} on {day}, {time}.", "There will be a {title} in {place} at {time} on {day}.", "At {time} on {day} the {title} starts in {place}.", "~The {title} in {place} is on {day} at {time}."]),
    "trip": (dict(traveller=("string", lambda w: w.name()), origin=("string", lambda w: w.place()), destination=("string", lambda w: w.place()), day=("string", lambda w: w.one(DAYS))),
        ["{traveller} travels from {origin} to {destination} on {day}.", "On {day} {traveller} takes the train from {origin} to {destination}.", "{traveller} leaves {origin} on {day} and goes to {destination}.", "On {day} {traveller} goes from {origin} to {destination}.", "From {origin} to {destination}: {traveller}, on {day}.", "~{traveller} takes the train from {origin} to {destination} on {day}."]),
    "pet": (dict(owner=("string", lambda w: w.name()), pet=("string", lambda w: w.name()), species=("string", lambda w: w.one(ANIMALS)), age=("integer", lambda w: w.int(1, 20))),
        ["{owner} has a {species} called {pet}, {age} years old.", "{pet} is a {species} of {age} years and belongs to {owner}.", "The {species} {pet}, aged {age}, lives with {owner}.", "The {species} of {owner} is called {pet} and is {age} years old.", "{pet}, the {species} of {owner}, is {age} years old.", "{owner} and the {species} {pet} live here; {pet} is {age} years old.", "~{owner} has a {species} of {age} years called {pet}."]),
    "booking": (dict(name=("string", lambda w: w.name()), people=("integer", lambda w: w.int(1, 12)), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.time())),
        ["A table for {people} people on {day} at {time}, name {name}.", "{name} books for {people} people, {day} at {time}.", "Please book {day} at {time} for {people} people under the name {name}.", "{name} wants a table for {people} people at {time} on {day}.", "On {day} at {time}: {people} people, name {name}.", "~{name} books a table for {people} people on {day} at {time}."]),
    "thing": (dict(item=("string", lambda w: w.one(THINGS)), colour=("string", lambda w: w.one(COLOURS)), place=("string", lambda w: w.one(SPOTS)), number=("integer", lambda w: w.number(3))),
        ["The {colour} {item} with number {number} is in the {place}.", "In the {place} there is a {colour} {item}, number {number}.", "Item {number}: a {colour} {item} in the {place}.", "Look in the {place} for the {colour} {item} with number {number}.", "The {colour} {item} in the {place} has number {number}.", "~Number {number} is the {colour} {item} in the {place}."]),
}


def extraction(w, talk=None):
    fields, forms = RECORDS[w.one(list(RECORDS))]
    values = {f: draw(w) for f, (_, draw) in fields.items()}
    sentence = w.say(forms).format(**values)
    names = list(fields)
    if w.r() < 0.6: names = w.some(names, w.int(2, len(names)))
    schema = {"type": "object", "properties": {n: {"type": fields[n][0]} for n in names}, "required": names}
    listed = ", ".join(names[:-1]) + w.one([" and ", ", "]) + names[-1]
    a = w.r()
    if a < 0.6: q = w.say(["Give me JSON with the fields {f}: {t}", "Extract {f} as JSON: {t}", "{t} Answer with JSON with the fields {f}.", "{t}\nGive me a JSON object with the fields {f}.", "Turn this into JSON with {f}: {t}", "Write {f} as a JSON object: {t}", "Write {f} as JSON: {t}", "JSON with {f}, please: {t}", "~Please extract {f} as a JSON object: {t}"]).format(f=listed, t=sentence)
    elif a < 0.85: q = w.say(["{t}\nAnswer with JSON for this schema: {s}", "Schema: {s}\nText: {t}", "Extract JSON by this schema: {s}\n{t}", "{t}\nThe JSON schema is {s}", "Text: {t}\nSchema: {s}", "{s}\n{t}", "~Text: {t}\nThe schema is {s}"]).format(s=json.dumps(schema, separators=w.one([(",", ":"), (", ", ": ")])), t=sentence)
    else:
        names = list(fields); schema = {"type": "object", "properties": {n: {"type": fields[n][0]} for n in names}, "required": names}
        q = w.say(["Extract the data as JSON: {t}", "Turn this into JSON: {t}", "{t} Answer with JSON.", "Please write this as JSON: {t}", "{t} Write this as JSON.", "~Please extract the data as JSON: {t}"]).format(t=sentence)
    want = {n: values[n] for n in names}
    return [(q, json.dumps(want), dict(kind="json", want=want, schema=schema))]


VERBS = "get check find fetch show lookup read query ask load give tell search view".split()
TOPICS = "river_level bus_fare ticket_price opening_hours air_quality moon_phase population sunrise sunset stock queue_length fuel_price postcode phone_number rainfall traffic humidity distance tide snow_depth".split()
# fixed tools: name, description, parameters (name, type, draw), requests, result fields with draws, answers
FIXED = [
    ("get_time", "Current time in a city", [("city", "string", lambda w: w.place())],
     ["What time is it in {city}?", "Tell me the time in {city}.", "What is the time in {city}?", "Can you tell me the time in {city}?", "~Can you tell me what time it is in {city}?"], dict(time=lambda w: w.time()), "It is {time} in {city}."),
    ("get_weather", "Current weather in a city", [("city", "string", lambda w: w.place())],
     ["What is the weather in {city}?", "How is the weather in {city}?", "Tell me the weather in {city}.", "Can you check the weather in {city}?", "~Can you tell me how the weather is in {city}?"], dict(temperature=lambda w: w.int(-10, 38), condition=lambda w: w.one(SKIES)), "It is {temperature} degrees with {condition} in {city}."),
    ("set_timer", "Start a timer", [("minutes", "integer", lambda w: w.int(1, 90))],
     ["Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.", "Wake me in {minutes} minutes.", "I need a timer for {minutes} minutes."], dict(status=lambda w: "started"), "The timer for {minutes} minutes is started."),
    ("send_message", "Send a message to a person", [("to", "string", lambda w: w.name()), ("text", "string", lambda w: f"The {w.one(THINGS)} is in the {w.one(SPOTS)}")],
     ["Send {to} this message: {text}", "Write to {to}: {text}", "Tell {to} by message: {text}", "Please message {to}: {text}"], dict(status=lambda w: "sent"), "The message to {to} is sent."),
    ("turn_on_light", "Turn on the light in a room", [("room", "string", lambda w: w.one(SPOTS))],
     ["Turn on the light in the {room}.", "Light in the {room}, please.", "I need light in the {room}.", "Please turn the light on in the {room}."], dict(status=lambda w: "on"), "The light in the {room} is on."),
    ("add_to_list", "Add an item to the shopping list", [("item", "string", lambda w: w.one(FOODS)), ("quantity", "integer", lambda w: w.int(1, 30))],
     ["Add {quantity} of {item} to the list.", "Put {quantity} times {item} on my shopping list.", "I need {quantity} of {item} on the shopping list."], dict(status=lambda w: "added"), "{quantity} of {item} is on the list."),
    ("convert_currency", "Convert an amount of money", [("amount", "integer", lambda w: w.int(1, 999)), ("currency", "string", lambda w: w.one("euro dollar pound yen krone franc".split()))],
     ["Convert {amount} to {currency}.", "How much is {amount} in {currency}?", "Change {amount} into {currency}."], dict(result=lambda w: w.int(1, 9999)), "That is {result} {currency}."),
    ("search_files", "Search the files for a word", [("query", "string", lambda w: w.word())],
     ["Search my files for {query}.", "Find {query} in my files.", "Look for {query} in the files.", "Where in my files is {query}?"], dict(count=lambda w: w.int(0, 40)), "There are {count} files with {query}."),
]


def made_tool(w):
    """A tool that nobody has seen: verb and topic are combined, and some combinations are held out."""
    def topic():                                         # also nonsense topics, so that names must be read, not known
        a = w.r()
        return w.one(TOPICS) if a < 0.4 else w.one(FOODS + THINGS + ANIMALS) + "_" + w.one("count price size age number colour weight height speed cost".split()) if a < 0.7 else w.pseudo() + w.one(["", "_level", "_code", "_rate"])
    name = w.mine(lambda: w.one(VERBS) + "_" + topic())
    topic = name.split("_", 1)[1].replace("_", " ")
    p = w.one(["place", "city", "town", "location", "area", "region", "spot", "site", "where"]) if w.r() < 0.8 else w.pseudo()
    return (name, f"{w.one(['Returns', 'Gives', 'Finds'])} the {topic} of a {p}", [(p, "string", lambda w: w.place())],
            [f"What is the {topic} of {{{p}}}?", f"Tell me the {topic} of {{{p}}}.", f"I need the {topic} of {{{p}}}.", f"Can you find the {topic} of {{{p}}}?", f"Can you tell me the {topic} of {{{p}}}?", f"Look up the {topic} of {{{p}}}.", f"~Can you check the {topic} of {{{p}}}?"],
            {topic.replace(" ", "_"): lambda w: w.int(1, 9999)}, f"The {topic} of {{{p}}} is {{{topic.replace(' ', '_')}}}.")


def pick_tools(w):
    tools = w.some(FIXED, w.int(0, 2)) + [made_tool(w) for _ in range(w.int(0, 3))]
    if w.r() < 0.5: tools += [t for t in FIXED[:2] if t not in tools]
    seen, out = set(), []
    for t in tools or [FIXED[0], made_tool(w)]:
        topic = t[0].split("_", 1)[1]
        if topic not in seen: seen.add(topic); out.append(t)
    w.rng.shuffle(out)
    return out


def declare(tool):
    name, what, params, *_ = tool
    return {"type": "function", "function": {"name": name, "description": what, "parameters": {
        "type": "object", "properties": {p: {"type": t} for p, t, _ in params}, "required": [p for p, _, _ in params]}}}


def call_message(name, args):
    return dict(role="assistant", content=None, tool_calls=[dict(id=f"functions.{name}:0", type="function", function=dict(name=name, arguments=json.dumps(args)))])


def tool_use(w, tools):
    """Messages: the request, the call, the result, the answer; each assistant message with its check."""
    name, _, params, forms, result, reply = w.one(tools)
    out = []
    for again in (False, True):
        args = {p: draw(w) for p, _, draw in params}
        got = {k: draw(w) for k, draw in result.items()}
        q = ask(w, w.say(forms).format(**args))
        if again:
            if len(params) > 1 or w.r() < 0.7: break
            q = w.say(["No, I meant {}.", "Sorry, I meant {}.", "And {}?", "Oh, I wanted {}."]).format(next(iter(args.values())))
        answer = reply.format(**args, **got)
        out += [(dict(role="user", content=q), None), (call_message(name, args), dict(kind="tool", name=name, want=args)),
                (dict(role="tool", content=json.dumps(got) if w.r() < 0.8 else " ".join(f"{k}: {v}" for k, v in got.items()), tool_call_id=f"functions.{name}:0"), None),
                (dict(role="assistant", content=answer), dict(kind="contains", want=[str(v) for v in got.values() if str(v) in answer]))]
    return out


def no_tool(w, tools):
    """A request for which nothing is declared."""
    have = {t[0].split("_", 1)[1] for t in tools or []}
    while True:
        t = w.one(FIXED) if w.r() < 0.5 else made_tool(w)
        if t[0].split("_", 1)[1] not in have: break
    q = ask(w, w.say(t[3]).format(**{p: d(w) for p, _, d in t[2]}))
    return [(q, "I cannot do that: I have no tool for it.", dict(kind="contains", want=["no tool"]))]

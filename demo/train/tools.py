"""Owns structured output: extraction to JSON fields, and calling declared tools and using their results."""
import json
from world import ADJECTIVES, ANIMALS, COLOURS, DAYS, EVENTS, FOODS, GOODS, JOBS, LANGUAGES, NOUNS, SKIES, SPOTS, THINGS

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# name -> (fields with their draw and type, sentences)
RECORDS = {
    "person": (dict(name=("string", lambda w: w.name()), age=("integer", lambda w: w.int(18, 90)), city=("string", lambda w: w.place()), job=("string", lambda w: w.one(JOBS))),
        ["{name} is {age} years old, lives in {city} and works as a {job}.", "{name}, {age}, a {job} from {city}.", "My neighbour {name} is a {job} in {city}, {age} years old.", "In {city} there is a {job} called {name}, aged {age}.", "The {job} {name} of {city} is {age} years old.", "{name} of {city} is {age} and a {job}.", "{name} is a {job}, {age} years old, from {city}.", "{name} works as a {job} in {city} and is {age} years old."]),
    "order": (dict(customer=("string", lambda w: w.name()), item=("string", lambda w: w.one(FOODS + THINGS)), quantity=("integer", lambda w: w.int(2, 99)), price=("integer", lambda w: w.int(1, 500))),
        ["{customer} ordered {quantity} of the {item} for {price} euros.", "Order from {customer}: {quantity} times {item}, {price} euros in all.", "{customer} wants {quantity} times the {item} and pays {price} euros.", "{customer} bought {quantity} of the {item} and paid {price} euros.", "For {price} euros {customer} gets {quantity} of the {item}.", "{customer} ordered {quantity} times the {item} and paid {price} euros."]),
    "event": (dict(title=("string", lambda w: w.one(["market", "concert", "meeting", "dinner", "lecture", "race", "play", "walk"])), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.clock()), place=("string", lambda w: w.place())),
        ["The {title} is on {day} at {time} in {place}.", "On {day} at {time} there is a {title} in {place}.", "Come to {place} for the {title}, {day} at {time}.", "{place}: {title} on {day}, {time}.", "There will be a {title} in {place} at {time} on {day}.", "At {time} on {day} the {title} starts in {place}.", "The {title} in {place} is on {day} at {time}."]),
    "trip": (dict(traveller=("string", lambda w: w.name()), origin=("string", lambda w: w.place()), destination=("string", lambda w: w.place()), day=("string", lambda w: w.one(DAYS))),
        ["{traveller} travels from {origin} to {destination} on {day}.", "On {day} {traveller} takes the train from {origin} to {destination}.", "{traveller} leaves {origin} on {day} and goes to {destination}.", "On {day} {traveller} goes from {origin} to {destination}.", "From {origin} to {destination}: {traveller}, on {day}.", "{traveller} takes the train from {origin} to {destination} on {day}."]),
    "pet": (dict(owner=("string", lambda w: w.name()), pet=("string", lambda w: w.name()), species=("string", lambda w: w.one(ANIMALS)), age=("integer", lambda w: w.int(1, 20))),
        ["{owner} has a {species} called {pet}, {age} years old.", "{pet} is a {species} of {age} years and belongs to {owner}.", "The {species} {pet}, aged {age}, lives with {owner}.", "The {species} of {owner} is called {pet} and is {age} years old.", "{pet}, the {species} of {owner}, is {age} years old.", "{owner} and the {species} {pet} live here; {pet} is {age} years old.", "{owner} has a {species} of {age} years called {pet}."]),
    "booking": (dict(name=("string", lambda w: w.name()), people=("integer", lambda w: w.int(1, 12)), day=("string", lambda w: w.one(DAYS)), time=("string", lambda w: w.clock())),
        ["A table for {people} people on {day} at {time}, name {name}.", "{name} books for {people} people, {day} at {time}.", "Please book {day} at {time} for {people} people under the name {name}.", "{name} wants a table for {people} people at {time} on {day}.", "On {day} at {time}: {people} people, name {name}.", "{name} books a table for {people} people on {day} at {time}."]),
    "thing": (dict(item=("string", lambda w: w.one(THINGS)), colour=("string", lambda w: w.one(COLOURS)), place=("string", lambda w: w.one(SPOTS)), number=("integer", lambda w: w.number(3))),
        ["The {colour} {item} with number {number} is in the {place}.", "In the {place} there is a {colour} {item}, number {number}.", "Item {number}: a {colour} {item} in the {place}.", "Look in the {place} for the {colour} {item} with number {number}.", "The {colour} {item} in the {place} has number {number}.", "Number {number} is the {colour} {item} in the {place}."]),
}


JSON = "(JSON|a JSON object|json|a json)"
FIELDS = [f"(give me|please give me|write|return|I need|I want|make|produce|output|can you give me|could you write) {JSON} with (the fields|fields|the keys|keys) <f>( for this| from this| of this text|): <t>", f"(extract|get|pull out|find|take) (the fields |)<f> (as|in|to) {JSON}( from this|): <t>", f"<t> (Answer with|Give me|Reply with|Now write|Make) {JSON} with (the fields|fields|the keys) <f>.", f"<t>\n(Give me|Write|Return|Now) {JSON} with (the fields|fields) <f>.", f"(turn|convert|change|put) this into {JSON} with <f>: <t>", f"(write|put|give me) <f> as {JSON}: <t>", f"{JSON} with (the fields |)<f>, please: <t>", f"Text: <t>\n(Fields|Keys): <f>. (Answer in|As|Write) {JSON}.", f"please extract <f> as {JSON}: <t>"]
SCHEMA = ["<t>\n(Answer with|Give me|Write|Reply with) JSON (for|that fits|by|following) this schema: <s>", "(Schema|The schema|JSON schema): <s>\n(Text: |Input: |)<t>", "(Extract|Write|Give me|Make) JSON (by|for|with|following) this schema: <s>\n<t>", "<t>\n(The JSON schema is|Schema:|Use this schema:) <s>", "Text: <t>\nSchema: <s>", "<s>\n<t>", "Text: <t>\nThe schema is <s>"]
WHOLE = [f"(extract|get|write) (the data|all data|everything|the information) as {JSON}: <t>", f"(turn|convert|change|put) (this|the text|it) (into|to) {JSON}: <t>", f"<t> (Answer with|Write this as|Turn this into|As|Make it) {JSON}.", f"(please write|write|give me|I want) this (as|in) {JSON}: <t>", f"{JSON}( please|, please|): <t>", f"please extract the data as {JSON}: <t>"]


STATED = [f"(give me|please give me|write|return|I need|I want|make|produce|output|can you give me|could you write|create|print|show me) {JSON} (with|of|for|containing|holding|that has|that says|where)(:|) <p>", f"{JSON}( please|)(:| with| of| for|) <p>( please|)", f"(turn|convert|put|write) <p> (into|as|in|to) {JSON}", f"<p> (as|in|to) {JSON}( please|)", f"<p>. (Give me|Write|Make|As|Write that as|Turn that into) {JSON}.", f"(make|build|create|write) {JSON} (from|out of|with)(:|) <p>", f"(a |)JSON object(:|, please:) <p>"]
PAIR = ["{k} {v}", "{k} {v}", "{k} {v}", "{k}: {v}", "{k} = {v}", "{k}={v}", "{k} is {v}", "the {k} {v}", '{k} "{v}"', "{k} set to {v}", "{k} as {v}", "a {k} of {v}"]


def stated(w, talk=None):
    """Exactly the fields named, their values as said."""
    fields = {f: draw for of, _ in RECORDS.values() for f, (_, draw) in of.items()} | dict(size=lambda w: w.int(1, 60), year=lambda w: w.int(1700, 2030), population=lambda w: w.int(2, 999), country=lambda w: w.place(), animal=lambda w: w.one(ANIMALS), fruit=lambda w: w.one(FOODS), weight=lambda w: w.int(1, 300), height=lambda w: w.int(1, 300), id=lambda w: w.number(3), author=lambda w: w.name(), surname=lambda w: w.name(), status=lambda w: w.one("open closed new done".split()), count=lambda w: w.int(0, 99), room=lambda w: w.int(1, 400), food=lambda w: w.one(FOODS), email=lambda w: w.made_word(), score=lambda w: w.int(0, 100), model=lambda w: w.made_word(), user=lambda w: w.name())
    for k in w.some(NOUNS, 4): fields.setdefault(k, lambda w: w.one([w.made_word(), w.int(0, 200), w.one(NOUNS)]))
    if w.r() < 0.15: fields[w.pseudo()] = lambda w: w.made_word()
    names = w.some(list(fields), w.one([1, 2, 2, 2, 2, 3, 3, 4]))
    want = {k: fields[k](w) for k in names}
    pair = w.one(PAIR); said = [pair.format(k=k, v=v) for k, v in want.items()]
    last = w.one([", ", " and ", " and ", ", and "]) if "=" not in pair else w.one([", ", " and "])
    between = ", "
    if w.r() < 0.12 and pair in PAIR[:6]: between = last = " "
    w.style.new(0.6); q = w.say(STATED).replace("<p>", between.join(said[:-1]) + last + said[-1] if len(said) > 1 else said[0])
    if w.style.bare: q = q.rstrip(".")
    return [(q if w.style.lower else q[0].upper() + q[1:], json.dumps(want, ensure_ascii=False), dict(kind="json", want=want))]


def extraction(w, talk=None):
    fields, forms = RECORDS[w.one(list(RECORDS))]
    values = {f: draw(w) for f, (_, draw) in fields.items()}
    sentence = w.say(forms).format(**values)
    names = list(fields)
    if w.r() < 0.6: names = w.some(names, w.int(2, len(names)))
    schema = {"type": "object", "properties": {n: {"type": fields[n][0]} for n in names}, "required": names}
    listed = ", ".join(names[:-1]) + w.one([" and ", ", "]) + names[-1]
    a = w.r(); w.style.new(0.9)
    if a < 0.6: q = w.say(FIELDS)
    elif a < 0.85: q = w.say(SCHEMA)
    else:
        names = list(fields); schema = {"type": "object", "properties": {n: {"type": fields[n][0]} for n in names}, "required": names}
        q = w.say(WHOLE)
    q = q[0].upper() + q[1:]
    if w.style.bare: q = q.rstrip(".")
    q = q.replace("<t>", sentence).replace("<f>", listed).replace("<s>", json.dumps(schema, separators=w.one([(",", ":"), (", ", ": ")])))
    want = {n: values[n] for n in names}
    return [(q, json.dumps(want, ensure_ascii=False), dict(kind="json", want=want, schema=schema))]


def titled(w):
    """What is to be done, in a few words."""
    return w.one([w.one(["water", "buy", "fix", "clean", "sell", "paint", "find", "order", "pack", "wash", "bring", "check"]) + " the " + w.one(GOODS + FOODS), w.one(["call ", "meet ", "write to ", "pay ", "ask "]) + w.name().split()[0], "buy " + w.one(FOODS), w.one(NOUNS) + " " + w.one(NOUNS), "feed the " + w.one(ANIMALS), w.made_word() + " " + w.one(NOUNS)])


VERBS = "get check find fetch show lookup read query ask load give tell search view".split()
TOPICS = "river_level bus_fare ticket_price opening_hours air_quality moon_phase population sunrise sunset stock queue_length fuel_price postcode phone_number rainfall traffic humidity distance tide snow_depth".split()
# fixed tools: name, description, parameters (name, type, draw), requests, result fields with draws, answers
FIXED = [
    ("get_time", "Current time in a city", [("city", "string", lambda w: w.place())],
     ["(what time is it|what is the time|what is the current time|how late is it|what time do they have)( right now| now|) in {city}", "(tell me|I need|can you tell me|give me|check|look up|do you know) (the time|the current time|the local time|what time it is) in {city}", "time in {city}", "(can you say|find out) what time it is in {city}"], dict(time=lambda w: w.clock()), "It is {time} in {city}."),
    ("get_weather", "Current weather in a city", [("city", "string", lambda w: w.place())],
     ["(what is|how is|what about) the weather( like|)( today| now| right now|) in {city}", "(tell me|check|give me|can you check|I want to know|look up|do you know) (the weather|how the weather is|what the weather is like) in {city}", "is it (raining|cold|sunny|warm|hot|snowing|windy) in {city}", "weather in {city}", "how (warm|cold|hot) is it in {city}", "(do I need an umbrella|should I take a coat) in {city}", "(what sort of|what kind of) weather do they have in {city}"], dict(temperature=lambda w: w.int(-10, 38), condition=lambda w: w.one(SKIES)), "It is {temperature} degrees with {condition} in {city}."),
    ("set_timer", "Start a timer", [("minutes", "integer", lambda w: w.int(1, 90))],
     ["(set|start|make|create|put on) a timer (for|of) {minutes} minutes", "(wake|remind) me in {minutes} minutes", "I need a timer (for|of) {minutes} minutes", "timer( for|:|) {minutes} minutes", "(tell me when|count down) {minutes} minutes( are over|)", "{minutes} minutes on the timer", "ring in {minutes} minutes"], dict(status=lambda w: "started"), "The timer for {minutes} minutes is started."),
    ("send_message", "Send a message to a person", [("to", "string", lambda w: w.name()), ("text", "string", lambda w: f"The {w.one(THINGS)} is in the {w.one(SPOTS)}")],
     ["(send|write) {to} (this message|a message|the message): {text}", "(write to|text|message|send to) {to}: {text}", "(tell|let) {to} (by message|in a message|know): {text}", "(message|a message) (to|for) {to}: {text}", "send (a message|this) to {to}: {text}", "drop {to} a line: {text}"], dict(status=lambda w: "sent"), "The message to {to} is sent."),
    ("turn_on_light", "Turn on the light in a room", [("room", "string", lambda w: w.one(SPOTS))],
     ["(turn|switch|put) on the (light|lights|lamp) in the {room}", "light in the {room}", "I need (some |)light in the {room}", "(turn|switch|put) the (light|lights|lamp) on in the {room}", "lights on in the {room}", "it is (too |)dark in the {room}", "light up the {room}"], dict(status=lambda w: "on"), "The light in the {room} is on."),
    ("add_to_list", "Add an item to the shopping list", [("item", "string", lambda w: w.one(FOODS)), ("quantity", "integer", lambda w: w.int(1, 30))],
     ["(add|put) {quantity} (of |times |){item} (to|on) (the|my) (shopping |)list", "I need {quantity} (of |){item} on the (shopping |)list", "(the|my) shopping list needs {quantity} {item}", "{quantity} {item} (for|on|to) the shopping list", "we (need|are out of) {item}, add {quantity} to the list", "write {quantity} {item} on the list"], dict(status=lambda w: "added"), "{quantity} of {item} is on the list."),
    ("convert_currency", "Convert an amount of money", [("amount", "integer", lambda w: w.int(1, 999)), ("currency", "string", lambda w: w.one("euro dollar pound yen krone franc".split()))],
     ["(convert|change|exchange|turn) {amount} (to|into) {currency}", "(how much|what) is {amount} in {currency}", "{amount} in {currency}", "what do I get in {currency} for {amount}", "what are {amount} worth in {currency}"], dict(result=lambda w: w.int(1, 9999)), "That is {result} {currency}."),
    ("search_files", "Search the files for a word", [("query", "string", lambda w: w.word())],
     ["(search|look through|go through|scan|check) (my|the) files for {query}", "(find|look for|search for) {query} in (my|the) files", "(where|which) (in|of) my files (is|has) {query}", "which files (have|contain|mention) {query}", "is {query} in (my|the) files", "seek {query} among my files"], dict(count=lambda w: w.int(0, 40)), "There are {count} files with {query}."),
]
MISSED = FIXED[:]                                         # what no_tool asks for
# more of them, which are not missed where they are not declared: the refusals have their own word for it
FIXED += [
    ("get_stock_price", "Price of a share", [("ticker", "string", lambda w: "".join(w.some(UPPER, w.one((2, 3, 4, 4)))))],
     ["(what is|get me|get|check|tell me|show me|I need|look up) (the |)(stock |share |)price (of|for) {ticker}", "(how is|how does) {ticker} (doing|stand)( today| now|)", "(stock|share) price (of |for |){ticker}", "what is {ticker} (at|worth)( now| today|)", "how much is (one |a share of |){ticker}( now|)"], dict(price=lambda w: w.int(2, 999)), "The price of {ticker} is {price}."),
    ("set_light", "Switch the light in a room", [("room", "string", lambda w: w.one(SPOTS)), ("state", "string", lambda w: w.one(["on", "off"]))],
     ["(turn|switch|put) {state} the (light|lights|lamp) in the {room}", "(turn|switch|put) the (light|lights|lamp) {state} in the {room}", "(lights|light) {state} in the {room}", "(turn|switch) the {room} (light|lights|lamp) {state}", "{room} (light|lights) {state}"], dict(status=lambda w: w.one(["ok", "done"])), "The light in the {room} is {state}."),
    ("book_table", "Book a table in a restaurant", [("name", "string", lambda w: w.name()), ("people", "integer", lambda w: w.int(2, 14)), ("time", "string", lambda w: w.clock())],
     ["(book|reserve|get) (me |us |)a table for {people}( people| persons|) at {time}( under the name| for| in the name of| for the name|,|, name| on the name) {name}", "(book|reserve) a table at {time} for {people}( people| guests|)(, name|, for|, under| under the name of| under) {name}", "a table for {people} at {time}, {name}", "{name} wants a table for {people} at {time}"], dict(status=lambda w: w.one(["booked", "confirmed"])), "The table for {people} at {time} is {status}."),
    ("send_email", "Send an email", [("to", "string", lambda w: w.name()), ("subject", "string", titled), ("body", "string", lambda w: f"The {w.one(THINGS)} is in the {w.one(SPOTS)}")],
     ["(send|write) (an |)(email|mail) to {to}(, | with )(the |)subject {subject}(, | and the text |, text |: |, body )".replace("(, | and the text |, text |: |, body )", "(, text|: | and the text|, body) {body}").replace(": | and", ":| and"), "(email|mail) {to}, subject {subject}(, text|, body|:) {body}"], dict(status=lambda w: "sent"), "The email to {to} is sent."),
    ("translate", "Translate a text into another language", [("text", "string", lambda w: w.one(["good morning", "thank you", "I like " + w.one(FOODS), "the " + w.one(THINGS) + " is " + w.one(COLOURS), w.one(NOUNS), "where is the " + w.one(SPOTS)])), ("language", "string", lambda w: w.one(LANGUAGES))],
     ["translate {text} (into|to) {language}", "(how do you say|what is|say) {text} in {language}", "{text} in {language}( please|)", "(I need|give me) {text} in {language}"], dict(translation=lambda w: w.made_word()), "That is {translation}."),
    ("play_music", "Play a song or an artist", [("title", "string", lambda w: w.made_word().capitalize() if w.r() < 0.5 else "The " + w.one(NOUNS).capitalize())],
     ["(play|put on|start) {title}( please|)", "(I want to|can we|let us) (hear|listen to) {title}", "(play|put on) (the song|the album|something by|a song called) {title}", "music: {title}"], dict(status=lambda w: w.one(["playing", "started"])), "{title} is {status}."),
    ("web_search", "Search the web", [("query", "string", lambda w: w.one([w.made_word(), w.one(NOUNS) + " " + w.made_word(), w.made_word() + " " + w.one(NOUNS), w.name(), "the " + w.one(ADJECTIVES) + " " + w.one(NOUNS)]))],
     ["(search|look on|search on) (the web|the internet|the net|online)( for|:) {query}", "(google|look up|search for|search) {query}( online| on the web| on the internet|)", "(find|look) {query} (online|up|on the web)", "what does the (web|internet) say about {query}"], dict(result=lambda w: f"{w.one(COLOURS)} {w.one(THINGS)} of {w.place()}"), "I found this: {result}."),
    ("create_event", "Put an event into the calendar", [("title", "string", lambda w: w.one(EVENTS)), ("day", "string", lambda w: w.one(DAYS)), ("time", "string", lambda w: w.clock())],
     ["(put|add|enter) {title} (in|into|to) (my|the) calendar(,| on| for) {day} at {time}", "(schedule|plan|create|add|set up) (a |an |)(event |){title} (on|for) {day} at {time}", "calendar: {title} on {day} at {time}", "{title} on {day} at {time}, (put|add) it (in|to) my calendar"], dict(status=lambda w: w.one(["created", "added"])), "{title} on {day} at {time} is {status}."),
    ("get_order_status", "Status of an order", [("order_id", "integer", lambda w: w.number(w.one((3, 4, 5))))],
     ["(where is|what is the status of|what about|check|how is|track) (my |the |)order (number |no |){order_id}", "(status of|status for) order {order_id}", "(has|is) (my |)order {order_id} (shipped|sent|ready|arrived)( yet|)", "order {order_id}( please|, where is it|, what is the status)"], dict(status=lambda w: w.one(["shipped", "open", "delivered", "delayed", "packed"])), "Order {order_id} is {status}."),
]
# what others call the same parameter; and the same tool
OTHERWISE = dict(city="location place town city_name where location".split(), room="room_name location area".split(), ticker="symbol stock ticker_symbol".split(), query="q search_term text keyword query_string".split(), to="recipient person receiver name".split(), minutes="duration duration_minutes time_minutes length".split(), item="name product article".split(), people="guests party_size persons seats".split(), order_id="id order_number number".split(), language="target_language target to_language".split(), title="name song query".split(), amount="value sum money".split())
CALLED = dict(get_weather="get_current_weather weather fetch_weather lookup_weather check_weather weather_lookup getWeather get_forecast".split(), get_time="get_current_time current_time time_in_city getTime local_time".split(), set_timer="start_timer timer create_timer setTimer".split(), send_message="message send_text sendMessage".split(), search_files="find_in_files grep_files searchFiles".split(), get_stock_price="stock_price getStockPrice quote".split(), web_search="search search_web google internet_search".split(), set_light="control_light light switch_light".split(), send_email="email sendEmail".split(), book_table="reserve_table make_reservation reserve".split(), play_music="play play_song".split(), create_event="add_event create_calendar_event".split())
DESCRIBED = dict(get_weather=["Get the weather in a city", "Get the current weather in a given location", "Weather for a place", "Returns the weather of a city"], get_time=["Get the time in a city", "The local time of a place"], get_stock_price=["Get the current price of a stock", "Current stock price by its symbol"], web_search=["Search the internet for information", "Searches the web"])


def varied(w, tool):
    """As somebody else calls it and its parameters."""
    name, what, params, forms, result, reply = tool
    if w.r() < 0.5: return tool
    if name in DESCRIBED and w.r() < 0.7: what = w.one(DESCRIBED[name])
    for p, _, _ in params:
        other = w.one(OTHERWISE[p]) if p in OTHERWISE and w.r() < 0.6 else p
        if other == p or other in [q for q, _, _ in params]: continue
        params = [(other if q == p else q, t, d) for q, t, d in params]
        forms, reply = [f.replace("{%s}" % p, "{%s}" % other) for f in forms], reply.replace("{%s}" % p, "{%s}" % other)
    return (w.one(CALLED[name]) if name in CALLED and w.r() < 0.4 else name, what, params, forms, result, reply)


def topic_of(name): return name.split("_", 1)[-1]


def made_tool(w):
    """A tool that nobody has seen: verb and topic are combined, and some combinations are held out."""
    def topic():                                         # also nonsense topics, so that names must be read, not known
        a = w.r()
        return w.one(TOPICS) if a < 0.25 else w.one(NOUNS + THINGS) + "_" + w.one("count price size age number colour weight height speed cost level status name date rate".split()) if a < 0.6 else w.one(NOUNS) + "_" + w.one(NOUNS) if a < 0.75 else w.pseudo() + w.one(["", "_level", "_code", "_rate", "_" + w.pseudo()])
    name = w.mine(lambda: w.one(VERBS) + "_" + topic())
    topic = name.split("_", 1)[1].replace("_", " ")
    kind = w.r()
    if kind < 0.7: p, type_, draw, of = w.one(["place", "city", "town", "location", "area", "region", "spot", "site", "where", "country", "village"]), "string", lambda w: w.place(), "a place"
    elif kind < 0.85: p, type_, draw, of = w.one(["person", "name", "user", "customer", "who", "member"]), "string", lambda w: w.name(), "a person"
    else: p, type_, draw, of = w.one(["id", "number", "code", "room", "order"]), "integer", lambda w: w.number(w.int(2, 5)), "a number"
    if w.r() < 0.15: p = w.pseudo()
    key = topic.replace(" ", "_")
    return (name, f"{w.one(['Returns', 'Gives', 'Finds', 'Get', 'Looks up'])} the {topic} of {w.one([of, of, 'a ' + p])}", [(p, type_, draw)],
            [f"(what is|can you check|how about|what about|find|find out|can you find|get|get me|look up|tell me|can you tell me|I need|give me|show me|check|do you know|could you find) the {topic} (of|for|in) {{{p}}}", f"the {topic} (of|for) {{{p}}}", f"(what|which) {topic} (does|has) {{{p}}}( have|)", f"(please inform me of|say) the {topic} of {{{p}}}"],
            {key: (lambda w: w.int(1, 9999)) if w.r() < 0.7 else (lambda w: w.made_word())}, f"The {topic} of {{{p}}} is {{{key}}}.")


DEEDS = "add create book send set make save schedule order log start reserve post record register plan open note write".split()
OBJECTS = "task event note reminder ticket meeting order room table alarm expense contact song invoice message mail booking job shift file entry visit trip parcel todo issue comment item call".split()


# parameter -> (type, its draw, how it is said behind the deed)
DEED_PARAMS = dict(title=("string", titled, "(: | called | named | titled |, title |, title: | with the title )"), text=("string", titled, "(: | saying | with the text |, text: | that says )"), name=("string", lambda w: w.name(), "( for | named | called |, name |, name: | in the name of )"), subject=("string", titled, "( about | with the subject |, subject |, subject: | on )"), to=("string", lambda w: w.name(), "( to | for |, to )"), person=("string", lambda w: w.name(), "( with | for |, person |, person: )"), day=("string", lambda w: w.one(DAYS), "( on | for |, day |, |, day: )"), time=("string", lambda w: w.clock(), "( at | for |, time |, time: |, )"),
                   date=("string", lambda w: w.date(), "( on | for |, date |, date: )"), place=("string", lambda w: w.place(), "( in | at |, place |, place: )"), priority=("integer", lambda w: w.int(1, 9), "( with priority |, priority |, priority: | at priority | and priority )"), amount=("integer", lambda w: w.int(1, 999), "(, amount | of |, amount: | over | for )"), quantity=("integer", lambda w: w.int(1, 60), "(, quantity |, quantity: | with quantity |, number )"), people=("integer", lambda w: w.int(1, 12), "( for |, people: |, people )"), minutes=("integer", lambda w: w.int(5, 120), "(, minutes |, minutes: )"), colour=("string", lambda w: w.one(COLOURS), "( in |, colour |, colour: )"), room=("integer", lambda w: w.int(1, 400), "( in room |, room |, room: )"))


def made_action(w):
    """A tool that does something, of one to three parameters, and how one asks for it."""
    deed, thing = w.mine(lambda: f"{w.one(DEEDS)}_{w.one(OBJECTS)}").split("_")
    first = w.one(["title", "title", "text", "name", "to", "subject", "person", "amount"]); rest = w.some([p for p in DEED_PARAMS if p != first and not {p, first} <= {"title", "text", "subject"} and not {p, first} <= {"name", "to", "person"} and p not in ("title", "text")], w.one((0, 1, 1, 1, 2)))
    if "day" in rest and "date" in rest: rest.remove("date")
    names = [first] + rest
    said = "".join(f"{DEED_PARAMS[p][2]}{{{p}}}" for p in names)
    if w.r() < 0.3: w.rng.shuffle(names)
    article = w.one(["a", "a", "a new", "the", "this", "", "me a"]).strip()
    lead = f"({deed}|please {deed}|can you {deed}|{deed}|I want to {deed}|could you {deed}) {article} {thing}".replace("  ", " ")
    return (f"{deed}_{thing}", w.one([f"{deed.capitalize()} a {thing}", f"{deed.capitalize()}s a new {thing}", f"{thing.capitalize()}: {deed} one", f"Use this to {deed} a {thing}"]), [(p, *DEED_PARAMS[p][:2]) for p in names],
            [lead + said, f"(new |){thing}{said}", f"I need a {thing}{said}"], dict(status=lambda w: w.one(["done", "ok", "created", "saved", "accepted"])), f"The {thing} is {{status}}.")


def pick_tools(w):
    tools = w.some(FIXED, w.int(0, 2)) + [made_tool(w) if w.r() < 0.6 else made_action(w) for _ in range(w.int(0, 3))]
    if w.r() < 0.5: tools += [t for t in FIXED[:2] if t not in tools]
    seen, out = set(), []
    for t in tools or [FIXED[0], made_tool(w)]:
        if topic_of(t[0]) in seen: continue
        seen.add(topic_of(t[0])); other = varied(w, t)
        out.append(other if other[0] not in [o[0] for o in out] else t)
    w.rng.shuffle(out)
    return out


def declare(w, tool, habit):
    name, what, params, *_ = tool
    return habit.declared(w, name, what, {p: t for p, t, _ in params})


def call_message(name, args):
    return dict(role="assistant", content=None, tool_calls=[dict(id=f"functions.{name}:0", type="function", function=dict(name=name, arguments=json.dumps(args, ensure_ascii=False)))])


def request(w, forms, args):
    g = w.say(forms)
    return w.style.write("say" if g[0] == "{" or g[-1:] == ":" or "{text}" in g else "ask" if g.startswith(("wh", "how", "is ", "do ", "can ", "could ", "time ", "weather ", "should ")) else "do", g, **args)


def tool_use(w, tools):
    """Messages: the request, the call, the result, the answer; each assistant message with its check."""
    name, _, params, forms, result, reply = w.one(tools)
    out = []
    for again in (False, True):
        w.style.new(); args = {p: w.style.value(v) if isinstance(v, str) else v for p, _, draw in params for v in [draw(w)]}
        got = {k: draw(w) for k, draw in result.items()}
        q = request(w, forms, args)
        if again:
            if len(params) > 1 or w.r() < 0.7: break
            q = w.style.write("say", w.say("(No, I meant |Sorry, I meant |And |And in |Oh, I wanted |What about |And what about ){x}(.||?)"), x=next(iter(args.values())))
        failed = w.r() < 0.04
        if failed: got = dict(error=w.one(["not found", "timeout", "no such place", "unknown", "service unavailable", "access denied", "invalid value", "out of range"]))
        answer = f"The tool failed: {got['error']}." if failed else reply.format(**args, **got)
        out += [(dict(role="user", content=q), None), (call_message(name, args), dict(kind="tool", name=name, want=args)),
                (dict(role="tool", content=json.dumps(got, ensure_ascii=False) if w.r() < 0.8 else " ".join(f"{k}: {v}" for k, v in got.items()), tool_call_id=f"functions.{name}:0"), None),
                (dict(role="assistant", content=answer), dict(kind="contains", want=[str(v) for v in got.values() if str(v) in answer]))]
    return out


def no_tool(w, tools):
    """A request for which nothing is declared."""
    have = {p for t in tools or [] for p in (t[0], t[1])}
    t = w.one([t for t in MISSED if not {t[0], *CALLED.get(t[0], []), *DESCRIBED.get(t[0], []), t[1]} & have])
    w.style.new()
    q = request(w, t[3], {p: d(w) for p, _, d in t[2]})
    return [(q, "I cannot do that: I have no tool for it.", dict(kind="contains", want=["no tool"]))]

"""What programs ask of the demo model through the official `openai` client: answers parsed into pydantic models, tools
called and answered, cancelling, several answers, biases, the Responses API. `surface.py SOCKET`. Fails by assertion."""

import json
import re
import sys
import time
from typing import Literal

import openai
import pydantic

try:  # The client moved to httpx2 in its third version.
    import httpx2 as httpx
except ImportError:
    import httpx

http = httpx.Client(transport=httpx.HTTPTransport(uds=sys.argv[1]), timeout=120)
client = openai.OpenAI(base_url="http://deltad/v1", api_key="none", http_client=http, max_retries=0)
model = client.models.list().data[0].id
greedy = dict(model=model, temperature=0, max_tokens=96)


def user(text):
    return {"role": "user", "content": text}


def metric(name):
    text = http.get("http://deltad/metrics").text
    return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))


# An answer as a pydantic model: the schema is enforced, so that parsing cannot fail.
class Order(pydantic.BaseModel):
    customer: str
    item: str
    quantity: int


ordered = user("Give me JSON with the fields customer, item and quantity: Tessa ordered 12 of the kettle for 80 euros.")
parsed = client.chat.completions.parse(**greedy, messages=[ordered], response_format=Order)
assert parsed.choices[0].message.parsed == Order(customer="Tessa", item="kettle", quantity=12), parsed


# Held to a schema it was never shown, hot, the model still keeps to it.
class Verdict(pydantic.BaseModel):
    verdict: Literal["yes", "no", "perhaps"]
    reasons: list[Literal["cost", "time"]] = pydantic.Field(min_length=1, max_length=2)


for seed in range(5):
    hot = client.chat.completions.parse(model=model, temperature=2, seed=seed, max_tokens=200, messages=[user("Well?")], response_format=Verdict)
    assert isinstance(hot.choices[0].message.parsed, Verdict), hot

# json_object: any object.
free = client.chat.completions.create(**greedy, messages=[ordered], response_format={"type": "json_object"})
assert isinstance(json.loads(free.choices[0].message.content), dict)

weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
clock = {"type": "function", "function": {"name": "get_time", "description": "Get the time.", "parameters": {"type": "object", "properties": {}}}}

# A tool's whole round trip: called, run here, its result in the answer.
talk = [user("What is the weather in Oakhaven?")]
asked = client.chat.completions.create(**greedy, messages=talk, tools=[weather])
choice = asked.choices[0]
assert choice.finish_reason == "tool_calls", choice
call = choice.message.tool_calls[0]
assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oakhaven"})
talk.append(choice.message.model_dump(exclude_none=True))
talk.append({"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 17, "condition": "rain"}'})
answer = client.chat.completions.create(**greedy, messages=talk, tools=[weather]).choices[0].message.content
assert "17" in answer and "rain" in answer, answer

# The same streamed, gathered by the client itself.
with client.chat.completions.stream(**greedy, messages=talk[:1], tools=[weather]) as stream:
    gathered = stream.get_final_completion().choices[0].message.tool_calls[0]
assert gathered.function.arguments == call.function.arguments

# Tools that must, must not and may not be called.
for tool_choice, wanted in [("required", {"get_weather", "get_time"}), ({"type": "function", "function": {"name": "get_time"}}, {"get_time"})]:
    forced = client.chat.completions.create(**greedy, messages=[user("Hello!")], tools=[weather, clock], tool_choice=tool_choice)
    calls = forced.choices[0].message.tool_calls
    assert {c.function.name for c in calls} <= wanted, forced
    assert all(isinstance(json.loads(c.function.arguments), dict) for c in calls)
mute = client.chat.completions.create(**greedy, messages=talk[:1], tools=[weather], tool_choice="none")
assert not mute.choices[0].message.tool_calls and mute.choices[0].message.content

# Several answers, a bias, scores.
several = client.chat.completions.create(model=model, n=3, temperature=1, seed=4, max_tokens=8, messages=[user("Hello!")])
assert [c.index for c in several.choices] == [0, 1, 2]
first = client.chat.completions.create(**greedy, messages=[user("Hello!")], logprobs=True, top_logprobs=2).choices[0]
top = first.logprobs.content[0]
assert top.token == top.top_logprobs[0].token and top.logprob >= top.top_logprobs[1].logprob
token = http.post("http://deltad/tokenize", json={"content": top.token}).json()["tokens"][0]
barred = client.chat.completions.create(**greedy, messages=[user("Hello!")], logit_bias={str(token): -100}, logprobs=True).choices[0]
assert barred.logprobs.content[0].token != top.token

# Closing in mid-stream cancels: soon nothing runs, long before its tokens are made.
made = metric("deltad_completion_tokens_total")
long = client.chat.completions.create(model=model, stream=True, max_tokens=8000, messages=[user("Hello!")], extra_body={"ignore_eos": True})
for _, _ in zip(range(5), long):
    pass
long.close()
end = time.monotonic() + 30
while metric("deltad_running") > 0:
    assert time.monotonic() < end, "still running, half a minute after it was closed"
    time.sleep(0.05)
assert metric("deltad_completion_tokens_total") - made < 8000

# The Responses API, whole, streamed, parsed, with a tool.
whole = client.responses.create(model=model, temperature=0, max_output_tokens=48, instructions="You are a helpful assistant", input="What is 347 + 285?")
assert "632" in whole.output_text, whole
text = ""
with client.responses.stream(model=model, temperature=0, max_output_tokens=48, input="What is 347 + 285?") as events:
    for event in events:
        if event.type == "response.output_text.delta":
            text += event.delta
    assert events.get_final_response().output_text == text and "632" in text
order = client.responses.parse(model=model, temperature=0, input=[ordered], text_format=Order).output_parsed
assert order == Order(customer="Tessa", item="kettle", quantity=12), order
tool = {"type": "function", **weather["function"]}
first = client.responses.create(model=model, temperature=0, input=talk[:1], tools=[tool])
called = next(item for item in first.output if item.type == "function_call")
assert json.loads(called.arguments) == {"city": "Oakhaven"}
result = {"type": "function_call_output", "call_id": called.call_id, "output": talk[-1]["content"]}
second = client.responses.create(model=model, temperature=0, input=[*talk[:1], called.model_dump(exclude_none=True), result], tools=[tool])
assert "17" in second.output_text, second

# Kept: gone on with from its id, again from an old one, shown, listed, forgotten.
named = client.responses.create(model=model, temperature=0, max_output_tokens=48, input="My name is Tessa.")
other = client.responses.create(model=model, temperature=0, max_output_tokens=48, input="What is 3 + 4?", previous_response_id=named.id)
asked = client.responses.create(model=model, temperature=0, max_output_tokens=48, input="What is my name?", previous_response_id=other.id)
assert "Tessa" in asked.output_text, asked
assert asked.usage.input_tokens_details.cached_tokens >= other.usage.input_tokens + other.usage.output_tokens - 1, asked.usage
fork = client.responses.create(model=model, temperature=0, max_output_tokens=48, input="What is my name?", previous_response_id=named.id)
assert "Tessa" in fork.output_text and fork.usage.input_tokens < asked.usage.input_tokens, fork
shown = client.responses.retrieve(asked.id)
assert shown.output_text == asked.output_text and shown.previous_response_id == other.id, shown
items = client.responses.input_items.list(asked.id)
assert [item.content[0].text for item in items] == ["What is my name?"], items
client.responses.delete(other.id)
again = client.responses.create(model=model, temperature=0, max_output_tokens=48, input="What is my name?", previous_response_id=asked.id)
assert "Tessa" in again.output_text, again
try:
    client.responses.create(model=model, input="Go on", previous_response_id=other.id)
    raise AssertionError("a deleted answer was gone on with")
except openai.NotFoundError as error:
    assert error.code == "previous_response_not_found", error

# What is not served says so.
for refused in (
    lambda: client.embeddings.create(model=model, input="Hello"),
    lambda: client.images.generate(prompt="a cat"),
    lambda: client.responses.retrieve("resp_1"),
):
    try:
        refused()
        raise AssertionError("what is not served was answered")
    except openai.NotFoundError as error:
        assert error.body["message"], error

# A key keeps the end of its last answer: the next request computes what is new.
keyed = dict(**greedy, prompt_cache_key="talk", prompt_cache_retention="24h")
prose = "The baker walked to the mill. In March there was rain over the harbour for 4 days. "
talk = [user(prose * 5 + "My locker code is 4827.")]
first = client.chat.completions.create(**keyed, messages=talk)
talk += [{"role": "assistant", "content": first.choices[0].message.content}, user("What is my locker code?")]
second = client.chat.completions.create(**keyed, messages=talk)
assert "4827" in second.choices[0].message.content, second
assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.total_tokens - 1, second
try:
    client.chat.completions.create(**{**keyed, "prompt_cache_retention": "1y"}, messages=talk)
    raise AssertionError("a retention of a year was taken")
except openai.BadRequestError as error:
    assert error.param == "prompt_cache_retention", error

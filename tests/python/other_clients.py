"""Clients that share no code with `openai`: Anthropic's own on /v1/messages, and huggingface_hub's InferenceClient, which
reads OpenAI's chat with its own parser. `other_clients.py SOCKET`. Fails by assertion."""

import json
import sys

import anthropic
import httpx2
import huggingface_hub

socket = sys.argv[1]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
QUESTION = {"role": "user", "content": "What is the weather in Oakhaven?"}
RESULT = '{"temperature": 17, "condition": "rain"}'


def http():
    return httpx2.Client(transport=httpx2.HTTPTransport(uds=socket), timeout=120)


# Anthropic's client.
claude = anthropic.Anthropic(base_url="http://deltad", api_key="none", http_client=http(), max_retries=0)
# Newer clients have no name for the temperature; the API has.
ask = dict(model="any", max_tokens=64, extra_body={"temperature": 0})
sum_ = {"role": "user", "content": "What is 347 + 285?"}
whole = claude.messages.create(**ask, messages=[sum_])
assert "632" in whole.content[0].text and whole.stop_reason == "end_turn", whole
assert whole.usage.input_tokens > 0 and whole.usage.output_tokens > 0
with claude.messages.stream(**ask, system="You are a helpful assistant", messages=[sum_]) as stream:
    assert "632" in "".join(stream.text_stream)
tools = [{"name": "get_weather", "description": "Get the weather in a city.", "input_schema": WEATHER}]
called = claude.messages.create(**ask, messages=[QUESTION], tools=tools)
assert called.stop_reason == "tool_use", called
use = next(block for block in called.content if block.type == "tool_use")
assert (use.name, use.input) == ("get_weather", {"city": "Oakhaven"})
result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": RESULT}]}
talk = [QUESTION, {"role": "assistant", "content": [block.model_dump() for block in called.content]}, result]
assert "17" in claude.messages.create(**ask, messages=talk, tools=tools).content[0].text
# What is marked is written once, for as long as it says, and read then.
front = [{"type": "text", "text": "You are a helpful assistant. " * 30, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
first = claude.messages.create(**ask, system=front, messages=[sum_]).usage
assert first.cache_creation_input_tokens > 100 and first.cache_read_input_tokens < 20, first
assert first.cache_creation.ephemeral_1h_input_tokens == first.cache_creation_input_tokens, first
second = claude.messages.create(**ask, system=front, messages=[QUESTION]).usage
assert second.cache_creation_input_tokens == 0, second
assert second.cache_read_input_tokens == first.cache_read_input_tokens + first.cache_creation_input_tokens, second
try:
    claude.messages.create(**{**ask, "extra_body": {"temperature": 9}}, messages=[sum_])
    raise AssertionError("a temperature of 9 was taken")
except anthropic.BadRequestError as error:
    assert error.body["error"]["type"] == "invalid_request_error", error.body

# Hugging Face's client.
try:
    huggingface_hub.set_client_factory(http)
    hub = huggingface_hub.InferenceClient(base_url="http://deltad/v1", api_key="none")
except Exception as error:
    sys.exit(f"huggingface_hub: {error}")
chat = dict(model="any", max_tokens=64, temperature=0)
answer = hub.chat.completions.create(**chat, messages=[sum_])
assert "632" in answer.choices[0].message.content
deltas = hub.chat.completions.create(**chat, messages=[sum_], stream=True)
assert answer.choices[0].message.content == "".join(d.choices[0].delta.content or "" for d in deltas if d.choices)
function = {"type": "function", "function": {"name": "get_weather", "description": "Get the weather in a city.", "parameters": WEATHER}}
choice = hub.chat.completions.create(**chat, messages=[QUESTION], tools=[function], tool_choice="required").choices[0]
assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oakhaven"}, choice

"""Open Responses, the neutral standard of /v1/responses: the cases of its compliance suite, and some more, each body and
each event held against the types that its OpenAPI description is published as (`openresponses-types`).
`open_responses.py SOCKET`. The suite's image is refused by name: the models that are served read text. Fails by
assertion."""

import json
import sys

import httpx2 as httpx
from openresponses_types import types

http = httpx.Client(transport=httpx.HTTPTransport(uds=sys.argv[1]), timeout=120, base_url="http://deltad")
TOOL = {"type": "function", "name": "get_weather", "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
ORDER = {"type": "object", "properties": {"item": {"type": "string", "maxLength": 20},
                                          "quantity": {"type": "integer", "minimum": 0, "maximum": 99}},
         "required": ["item", "quantity"], "additionalProperties": False}


def called_as(name):
    """What an event's class calls itself, such as `response.output_text.delta`."""
    kind = getattr(types, name).model_fields["type"].annotation
    return [member.value for member in kind] if hasattr(kind, "__members__") else []


EVENTS = {kind: getattr(types, name) for name in dir(types) if name.endswith("StreamingEvent") for kind in called_as(name)}
assert len(EVENTS) > 20, EVENTS.keys()
# Of a reasoning model's own words the standard has another name than OpenAI's clients know.
ELSEWHERE = {"response.reasoning_text.delta", "response.reasoning_text.done"}


def message(role, content):
    return {"type": "message", "role": role, "content": content}


def whole(body, status="completed"):
    answer = http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    # The published types know no schema in an answer; the description does.
    told["text"]["format"].update({"schema": None} if "schema" in told["text"]["format"] else {})
    types.ResponseResource.model_validate(told)
    assert answer.json()["status"] == status and answer.json()["output"], answer.text
    kept = http.get(f"/v1/responses/{answer.json()['id']}").json()
    assert kept == answer.json(), (kept, answer.json())
    return answer.json()


def streamed(body, last="response.completed"):
    events = []
    with http.stream("POST", "/v1/responses", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[len("data: "):])
                assert event["type"] in EVENTS or event["type"] in ELSEWHERE, event
                EVENTS.get(event["type"], types.BaseModel).model_validate(event)
                assert event["sequence_number"] == len(events), event
                events.append(event)
    assert events[0]["type"] == "response.created" and events[-1]["type"] == last, events
    return events


basic = whole({"input": [message("user", "What is 3 + 4?")], "temperature": 0})
assert "7" in basic["output"][0]["content"][0]["text"], basic
assert basic["created_at"] <= basic["completed_at"], basic
events = streamed({"input": [message("user", "Count from 1 to 5.")]})
kinds = [event["type"] for event in events]
for kind in ("output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
             "output_item.done"):
    assert f"response.{kind}" in kinds, kinds
whole({"input": [message("system", "You are a pirate. Always respond in pirate speak."), message("user", "Say hello.")]})

weather = {"input": [message("user", "What is the weather in Oakhaven?")], "tools": [TOOL], "temperature": 0}
called = whole(weather)
assert called["output"][-1]["type"] == "function_call", called
events = streamed(weather)
calls = [e for e in events if e.get("item", {}).get("type") == "function_call"]
assert [e["type"] for e in calls] == ["response.output_item.added", "response.output_item.done"], calls
assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= {e["type"] for e in events}

# A tool as short as may be, a choice, and its result.
bare = {**weather, "tools": [{"type": "function", "name": "get_weather"}], "tool_choice": "required", "temperature": 0}
whole({**bare, "max_output_tokens": 200})
whole({**weather, "tool_choice": {"type": "function", "name": "get_weather"}})
result = {"type": "function_call_output", "call_id": called["output"][-1]["call_id"], "output": '{"temperature": 17}'}
whole({"input": [result], "previous_response_id": called["id"], "tools": [TOOL]})

talk = [message("user", "My name is Alice."), message("assistant", "Hello Alice! Nice to meet you."),
        message("user", "What is my name?")]
assert "Alice" in whole({"input": talk, "temperature": 0})["output"][0]["content"][0]["text"]

form = {"format": {"type": "json_schema", "name": "order", "schema": ORDER, "strict": True}}
whole({"input": "Tessa ordered 12 kettles.", "text": form, "temperature": 0})
whole({"input": "Hello!", "max_output_tokens": 2, "temperature": 0}, "incomplete")
streamed({"input": "Hello!", "max_output_tokens": 2, "temperature": 0}, "response.incomplete")
whole({"input": "Hello!", "reasoning": {"effort": "none"}, "metadata": {"a": "b"}, "instructions": "Be short."})
events = streamed({"input": "Hello!", "background": True})
assert events[1]["type"] == "response.queued", events

heart = "data:image/png;base64,iVBORw0KGgo="
image = [{"type": "input_text", "text": "What do you see?"}, {"type": "input_image", "image_url": heart}]
refused = http.post("/v1/responses", json={"input": [message("user", image)]})
assert refused.status_code == 400 and "reads text only" in refused.json()["error"]["message"], refused.text

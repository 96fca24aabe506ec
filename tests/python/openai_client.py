"""What the official client does with a daemon: `openai_client.py SOCKET`. Fails by assertion."""

import sys

import openai

try:  # The client moved to httpx2 in its third version.
    import httpx2 as httpx
except ImportError:
    import httpx

http = httpx.Client(transport=httpx.HTTPTransport(uds=sys.argv[1]), timeout=120)
client = openai.OpenAI(base_url="http://deltad/v1", api_key="none", http_client=http, max_retries=0)

model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

ask = dict(
    model=model,
    messages=[{"role": "user", "content": "hello"}],
    max_tokens=12,
    temperature=0,
    extra_body={"ignore_eos": True},
)
plain = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
choice = plain.choices[0]
assert choice.finish_reason == "length"
assert plain.usage.completion_tokens == 12
assert len(choice.logprobs.content) == 12
assert all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in choice.logprobs.content)

text, usage = "", None
for chunk in client.chat.completions.create(
    **ask, stream=True, stream_options={"include_usage": True}
):
    usage = chunk.usage or usage
    for part in chunk.choices:
        text += part.delta.content or ""
assert text == choice.message.content, (text, choice.message.content)
assert usage.completion_tokens == 12

stop = text[3:5]
stopped = client.chat.completions.create(**ask, stop=stop).choices[0]
assert stopped.finish_reason == "stop"
assert stopped.message.content == text.split(stop)[0]


def seeded(seed):
    answer = client.completions.create(
        model=model, prompt="once", max_tokens=20, temperature=2, seed=seed
    )
    return answer.choices[0].text


assert seeded(1) == seeded(1)
assert seeded(1) != seeded(2)

scored = client.completions.create(
    model=model, prompt=[5, 6, 7], echo=True, logprobs=2, max_tokens=1
)
assert len(scored.choices[0].logprobs.token_logprobs) == 4
assert scored.choices[0].logprobs.token_logprobs[0] is None

try:
    client.chat.completions.create(**{**ask, "temperature": 9})
    raise AssertionError("a temperature of 9 was taken")
except openai.BadRequestError as error:
    assert error.param == "temperature", error
try:
    client.models.retrieve("no-such-model")
    raise AssertionError("a model that is not there was found")
except openai.NotFoundError as error:
    assert error.code == "model_not_found", error

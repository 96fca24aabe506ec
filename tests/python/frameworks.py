"""Programs that others wrote their assistants with: openai-agents, pydantic-ai, instructor and langchain, each as its
own manual has it, but for where the daemon is. `frameworks.py SOCKET`. What they ask twice is not read twice. Fails by
assertion."""

import asyncio
import sys

import agents
import httpx2 as httpx
import instructor
import openai
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

socket = sys.argv[1]
RULES = "You are a helpful assistant. " * 20
WEATHER = "What is the weather in Oakhaven?"
AGAIN = "What is 3 + 4?"
RESULT = '{"temperature": 17, "condition": "rain"}'
asked = []


def http():
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket), timeout=120)


def client():
    return openai.AsyncOpenAI(base_url="http://deltad/v1", api_key="none", http_client=http(), max_retries=0)


def plain():
    return httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=120)


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    asked.append(city)
    return RESULT


def called():
    was = asked.copy()
    asked.clear()
    assert was == ["Oakhaven"], was


class Order(BaseModel):
    """What a customer ordered."""

    item: str
    quantity: int = Field(ge=0, le=99)


TOLD, ORDER = "Tessa ordered 12 kettles.", {"item": "kettles", "quantity": 12}


async def openai_agents():
    agents.set_tracing_disabled(True)
    for model in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel):
        settings = agents.ModelSettings(temperature=0)
        agent = agents.Agent(name="Helper", instructions=RULES, tools=[agents.function_tool(get_weather)],
                             model=model("any", client()), model_settings=settings)
        first = await agents.Runner.run(agent, WEATHER)
        called()
        assert "17" in first.final_output, first.final_output
        talk = first.to_input_list() + [{"role": "user", "content": AGAIN}]
        second = await agents.Runner.run(agent, talk)
        assert "7" in second.final_output, second.final_output
        usage = second.raw_responses[-1].usage
        cached = usage.input_tokens_details.cached_tokens
        assert usage.input_tokens - cached < 40, usage
    # The server keeps what was said: only what is new is sent.
    agent = agents.Agent(name="Helper", model=agents.OpenAIResponsesModel("any", client()), model_settings=settings)
    first = await agents.Runner.run(agent, "My name is Clara.")
    second = await agents.Runner.run(agent, "What is my name?", previous_response_id=first.last_response_id)
    assert "Clara" in second.final_output, second.final_output
    assert second.raw_responses[-1].usage.input_tokens_details.cached_tokens > 0, second.raw_responses[-1].usage


async def pydantic_ai():
    provider = OpenAIProvider(openai_client=client())
    for model in (OpenAIChatModel, OpenAIResponsesModel):
        model = model("any", provider=provider)
        agent = Agent(model, instructions=RULES, tools=[get_weather], model_settings={"temperature": 0})
        first = await agent.run(WEATHER)
        called()
        assert "17" in first.output, first.output
        second = await agent.run(AGAIN, message_history=first.all_messages())
        assert "7" in second.output, second.output
        usage = second.usage if not callable(second.usage) else second.usage()
        assert usage.input_tokens - usage.cache_read_tokens < 40, usage
        async with agent.run_stream(AGAIN) as stream:
            assert "7" in await stream.get_output()
        order = await Agent(model, output_type=Order, model_settings={"temperature": 0}).run(TOLD)
        assert order.output.model_dump() == ORDER, order


def instructors():
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        own = openai.OpenAI(base_url="http://deltad/v1", api_key="none", http_client=plain(), max_retries=0)
        ask = instructor.from_openai(own, mode=mode)
        order = ask.create(model="any", response_model=Order, temperature=0, max_retries=0,
                           messages=[{"role": "user", "content": TOLD}])
        assert order.model_dump() == ORDER, order


def langchain():
    for responses in (False, True):
        model = ChatOpenAI(model="any", base_url="http://deltad/v1", api_key=SecretStr("none"), temperature=0,
                           http_client=plain(), use_responses_api=responses)
        weather = tool(get_weather)
        bound = model.bind_tools([weather])
        talk = [HumanMessage(WEATHER)]
        talk.append(bound.invoke(talk))
        assert [call["name"] for call in talk[-1].tool_calls] == ["get_weather"], talk[-1]
        talk.append(weather.invoke(talk[-1].tool_calls[0]))
        called()
        talk.append(bound.invoke(talk))
        assert "17" in talk[-1].text, talk[-1]
        talk.append(HumanMessage(AGAIN))
        said = bound.invoke(talk)
        assert "7" in said.text, said
        usage = said.usage_metadata
        assert usage["input_tokens"] - usage["input_token_details"]["cache_read"] < 40, usage
        assert "7" in "".join(piece.text for piece in model.stream(AGAIN))
        order = model.with_structured_output(Order).invoke(TOLD)
        assert order.model_dump() == ORDER, order


asyncio.run(openai_agents())
asyncio.run(pydantic_ai())
instructors()
langchain()

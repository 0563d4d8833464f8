"""Ray Serve's applications from a script: the samples of its docs with one import line changed, on a real Ray."""

from __future__ import annotations

import pytest

from serveconf import serve

pytestmark = pytest.mark.ray


def test_ray_serve_s_samples_run_with_one_import_changed(cluster):
    serve.start(detached=True, http_options={"port": cluster.port})
    out = cluster.run(
        """
        import asyncio
        from typing import AsyncGenerator, List

        import numpy
        from fastapi import FastAPI
        from pydantic import BaseModel
        from starlette.requests import Request
        from starlette.responses import StreamingResponse
        from serveconf import serve
        from serveconf.serve.handle import DeploymentHandle

        app = FastAPI()

        @serve.deployment
        class Translator:
            def translate(self, text: str) -> str:
                return f"<{text}>"

        @serve.deployment
        class Summarizer:
            def __init__(self, translator: DeploymentHandle):
                self.translator = translator
            async def __call__(self, http_request: Request) -> str:
                text: str = await http_request.json()
                return await self.translator.translate.remote(text[:5])
            async def short(self, text):
                return text[:5]

        @serve.deployment
        class Batched:
            @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.1)
            async def __call__(self, numbers: List[int]) -> List[int]:
                return [10 * number for number in numbers]

        @serve.deployment(num_replicas=2)
        class Multiplexed:
            @serve.multiplexed(max_num_models_per_replica=2)
            async def get_model(self, model_id: str):
                return f"{model_id.upper()} {serve.get_replica_context().replica_tag}"
            async def __call__(self, request: Request):
                return await self.get_model(serve.get_multiplexed_model_id())
            async def named(self):
                return await self.get_model(serve.get_multiplexed_model_id())

        @serve.deployment
        class Streamer:
            async def count(self, limit: int) -> AsyncGenerator[int, None]:
                for i in range(limit):
                    yield i
            def __call__(self, request: Request) -> StreamingResponse:
                return StreamingResponse((f"{i};" for i in range(3)), media_type="text/plain")

        @serve.deployment
        @serve.ingress(app)
        class Front:
            def __init__(self, adder):
                self.adder = adder
            @app.get("/add")
            async def add(self, number: int):
                return await self.adder.remote(number)

        @serve.deployment
        class Adder:
            def __init__(self, increment: int):
                self.increment = increment
            def __call__(self, number):
                if number is None:
                    raise ValueError("nothing to add")
                return number + self.increment

        class Args(BaseModel):
            increment: int

        def builder(args: Args):
            return Front.bind(Adder.bind(args.increment))

        async def awaited(handle):
            return await asyncio.gather(*(handle.remote(n) for n in range(4)))

        pipeline = serve.run(Summarizer.bind(Translator.bind()), name="pipeline", route_prefix="/pipeline")
        print(pipeline.short.remote("a long text").result())
        translator = serve.get_deployment_handle("Translator", "pipeline")
        print(translator.translate.remote(pipeline.short.remote("response")).result(timeout_s=120))

        words = serve.run(Translator.bind(), name="words", route_prefix=None)
        print(words.translate.remote("alone").result())

        batched = serve.run(Batched.bind(), name="batched", route_prefix=None)
        print([r.result() for r in [batched.remote(n) for n in range(3)]], asyncio.run(awaited(batched)))

        models = serve.run(Multiplexed.bind(), name="models", route_prefix="/models")
        found = [models.options(multiplexed_model_id="m1").named.remote().result() for _ in range(8)]
        print(found[0][:2], len({*found}))

        handles = serve.run_many([
            serve.RunTarget(target=Streamer.bind(), name="streamer", route_prefix="/stream"),
            serve.RunTarget(target=builder(Args(increment=5)), name="front", route_prefix="/front"),
        ])
        print(list(handles[0].options(stream=True).count.remote(3)))
        adder = serve.get_deployment_handle("Adder", "front")
        print(adder.remote(numpy.arange(300_000)).result()[-1])
        try:
            adder.remote(None).result()
        except ValueError as error:
            print(error)

        serve.run(builder(Args(increment=6)), name="front", route_prefix="/front")
        print(adder.remote(1).result(), serve.get_app_handle("models").deployment_name)
        stack = next(one for one in serve.status().stacks if one.name == "pipeline")
        print(stack.state, sorted(one.name for one in stack.deployments))
        """
    )
    assert out.splitlines() == [
        "a lon",
        "<respo>",
        "<alone>",
        "[0, 10, 20] [0, 10, 20, 30]",
        "M1 1",
        "[0, 1, 2]",
        "300004",
        "nothing to add",
        "7 Multiplexed",
        "Healthy ['Summarizer', 'Summarizer.Translator']",
    ]
    assert cluster.http.post("/pipeline", json="good morning").text == "<good >"
    named = [cluster.http.get("/models", headers={"serve_multiplexed_model_id": "m2"}).text for _ in range(8)]
    assert named[0].startswith("M2 ") and len({*named}) == 1  # one of the two replicas has it
    assert cluster.http.get("/stream").text == "0;1;2;"
    assert cluster.get("/front/add?number=1") == 7
    assert cluster.http.get("/batched").status_code == 404


def test_run_replaces_an_application_keeps_the_front_and_delete_takes_it_away(cluster):
    source = """
        from serveconf import serve

        @serve.deployment
        class {name}:
            def __call__(self):
                return "{name}"

        print(serve.run({name}.bind()).remote().result())
    """
    assert cluster.run(source.format(name="One")) == "One\n"
    assert cluster.run(source.format(name="Two")) == "Two\n"
    out = cluster.run(
        """
        import asyncio
        import time
        from pathlib import Path
        from serveconf import serve

        over = str(Path("over").resolve())

        @serve.deployment(autoscaling_config={"max_replicas": 2, "upscale_delay_s": 0.1}, max_ongoing_requests=2)
        class Sleeper:
            async def __call__(self, over):
                while not Path(over).exists():
                    await asyncio.sleep(0.02)

        @serve.deployment
        class Asks:
            def __init__(self, sleeper):
                self.two = serve.get_app_handle("default")
            async def __call__(self):
                return await self.two.remote()

        asks = serve.run(Asks.bind(Sleeper.bind()), name="asks", route_prefix="/asks")
        print(asks.remote().result(), serve.get_deployment_handle("Two").remote().result())

        sleeper = serve.get_deployment_handle("Sleeper", "asks")
        calls = [sleeper.remote(over) for _ in range(12)]

        def replicas():
            stack = next(one for one in serve.status().stacks if one.name == "asks")
            return next(len(one.replicas) for one in stack.deployments if one.name == "Asks.Sleeper")

        until = time.monotonic() + 120
        while replicas() < 2 and time.monotonic() < until:
            time.sleep(0.1)
        found = replicas()
        Path(over).touch()
        print(found, [call.result() for call in calls] == [None] * 12)
        """
    )
    assert out == "Two Two\n2 True\n"  # a name in a replica, the default one in a script, and calls of a script count
    assert cluster.http.get("/").text == "Two"
    assert cluster.run(GRAPH.replace("PORT", str(cluster.port))) == "[(1, 1, 1), (2, 2, 2)]\n"
    assert set(serve.list_deployments()) == {"Two"}
    for name in ("pipeline", "asks", "pair"):
        serve.delete(name)  # the stack default has the port, and others are served there too
    assert "pipeline" not in {stack.name for stack in serve.status().stacks}
    serve.shutdown()


GRAPH = """
import asyncio
import threading
import time

import httpx
from serveconf import serve

@serve.deployment
class Inner:
    def __init__(self, version):
        self.version = version
    async def __call__(self):
        return self.version

@serve.deployment
class Outer:
    def __init__(self, inner, version):
        self.inner, self.version = inner, version
    async def __call__(self, request):
        first = await self.inner.remote()
        await asyncio.sleep(0.02)
        return [self.version, first, await self.inner.remote()]

answers, over = set(), threading.Event()

def ask():
    with httpx.Client(base_url="http://127.0.0.1:PORT", timeout=120) as http:
        while not over.is_set():
            answers.add(tuple(http.get("/pair").raise_for_status().json()))

for version in (1, 2):
    serve.run(Outer.bind(Inner.bind(version), version), name="pair", route_prefix="/pair")
    if version == 1:
        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
    until = time.monotonic() + 120
    while (version, version, version) not in answers and time.monotonic() < until:
        time.sleep(0.01)
over.set()
for thread in asking:
    thread.join()
print(sorted(answers))
"""

"""Several models that take turns in the memory of few replicas."""

import asyncio
import os

from starlette.requests import Request
from starlette.responses import JSONResponse

from serveconf import serve

WORDS = {"german": "Hallo", "french": "Bonjour", "spanish": "Hola", "english": "Hello", "latin": "Salve"}


class Model:
    """What takes long to load and much memory to keep."""

    def __init__(self, language: str) -> None:
        self.word = WORDS[language]

    def greet(self, name: str) -> str:
        """The answer."""
        return f"{self.word}, {name}!"

    def __del__(self) -> None:
        """Runs when the model has to make room: here would go what frees a GPU."""
        self.word = ""


@serve.deployment
class Greeter:
    """Answers with whichever model a request names."""

    def __init__(self) -> None:
        self.loads = 0

    @serve.multiplexed(max_num_models_per_replica=2)
    async def load(self, language: str) -> Model:
        """Called once for each model that is not there; the one that was used longest ago goes where there are two."""
        self.loads += 1
        await asyncio.sleep(0.05)  # reading it from a disk or a bucket
        return Model(language)

    async def __call__(self, request: Request) -> JSONResponse:
        """One request."""
        language = serve.get_multiplexed_model_id() or "english"
        if language not in WORDS:
            return JSONResponse({"detail": f"there is no model for {language}"}, status_code=404)
        model = await self.load(language)
        name = request.query_params.get("name", "world")
        return JSONResponse({"text": model.greet(name), "replica": os.getpid(), "loads": self.loads})


app = Greeter.bind()

"""A model that is as fast for sixteen inputs as for one, as models on a GPU are."""

import asyncio

from fastapi import FastAPI

from serveconf import serve

api = FastAPI(title="sentiment")
GOOD, BAD = {"good", "great", "lovely", "nice"}, {"bad", "awful", "sad", "ugly"}


@serve.deployment
@serve.ingress(api)
class Sentiment:
    """Reads each text as a request of its own, and judges those together that are there at the same time."""

    def reconfigure(self, config: dict[str, float]) -> None:
        """Called at the start, and whenever user_config changes."""
        self.judge.set_max_batch_size(config["max_batch_size"])
        self.judge.set_batch_wait_timeout_s(config["batch_wait_timeout_s"])

    @api.get("/")
    async def read(self, text: str) -> dict[str, object]:
        """One request. What it gives to ``judge`` is one item of a batch."""
        return await self.judge(text)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.02)
    async def judge(self, texts: list[str]) -> list[dict[str, object]]:
        """All of a batch: a list in, a list of the same length out. An exception in it is raised for its own caller alone."""
        await asyncio.sleep(0.01)  # the model: the same time, however many
        return [{"text": text, "mood": mood(text), "batch": len(texts)} for text in texts]


def mood(text: str) -> str:
    """What a real model would say better."""
    words = set(text.lower().split())
    score = len(words & GOOD) - len(words & BAD)
    return "good" if score > 0 else "bad" if score < 0 else "so so"

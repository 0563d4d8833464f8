"""A FastAPI app that knows nothing of serveconf: it would run under any ASGI server."""

from fastapi import FastAPI

app = FastAPI(title="hello")


@app.get("/")
def greet(name: str = "world") -> dict[str, str]:
    """A greeting."""
    return {"message": f"Hello, {name}!"}

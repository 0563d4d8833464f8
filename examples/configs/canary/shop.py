"""A shop with a version to look at: change it, apply, and watch who gets which."""

from fastapi import FastAPI

app = FastAPI(title="Shop")

VERSION = 1


@app.get("/")
def home() -> dict[str, int]:
    return {"version": VERSION}

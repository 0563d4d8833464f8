"""Another one: notes in memory. One replica, so that every request sees the same notes."""

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI(title="notes")
notes: dict[int, str] = {}


class Note(BaseModel):
    """What a client sends."""

    text: str


@app.get("/")
def list_notes() -> dict[int, str]:
    """All notes."""
    return notes


@app.post("/", status_code=201)
def add_note(note: Note) -> dict[str, int]:
    """Keep a note; answers its number."""
    number = len(notes) + 1
    notes[number] = note.text
    return {"number": number}


@app.get("/{number}")
def read_note(number: int) -> dict[str, str]:
    """One note."""
    if number not in notes:
        raise HTTPException(404, f"there is no note {number}")
    return {"text": notes[number]}

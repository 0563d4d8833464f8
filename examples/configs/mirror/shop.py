"""A shop, and the one that comes after it, which notes what it would have been asked."""

from pathlib import Path

from fastapi import FastAPI, Header
from pydantic import BaseModel


class Order(BaseModel):
    n: int


today = FastAPI()
tomorrow = FastAPI()


@today.post("/")
def order(order: Order) -> dict[str, str]:
    return {"version": "today"}


@tomorrow.post("/")
def order_tomorrow(order: Order, x_serveconf_mirrored: str = Header()) -> dict[str, str]:
    with Path("seen").open("a") as file:  # in the working directory, which is this folder
        file.write(f"{order.n}:{x_serveconf_mirrored}\n")
    return {"version": "tomorrow"}

"""Orders; the app is made by a factory, so that its currency comes from the spec."""

from fastapi import FastAPI
from pydantic import BaseModel

from shop.prices import PRICES


class Order(BaseModel):
    """How many of each item."""

    items: dict[str, int]


def make_app(currency: str) -> FastAPI:
    """The app for one currency."""
    app = FastAPI(title="orders")

    @app.post("/total")
    def total(order: Order) -> dict[str, str | int]:
        """What an order costs."""
        return {"cents": sum(PRICES[name] * count for name, count in order.items.items()), "currency": currency}

    return app

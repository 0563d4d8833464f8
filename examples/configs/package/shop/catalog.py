"""What the shop sells."""

from fastapi import FastAPI, HTTPException

from shop.prices import PRICES

app = FastAPI(title="catalog")


@app.get("/items")
def list_items() -> list[str]:
    """Names of everything on sale."""
    return sorted(PRICES)


@app.get("/items/{name}")
def read_item(name: str) -> dict[str, str | int]:
    """One item with its price."""
    if name not in PRICES:
        raise HTTPException(404, f"no {name} on sale")
    return {"name": name, "cents": PRICES[name]}

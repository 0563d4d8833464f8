"""An API that only partners may use; it hears who asks from the guard before it."""

from fastapi import FastAPI, Header

app = FastAPI(title="Orders")


@app.get("/orders")
def orders(x_api_key_name: str = Header()) -> dict[str, object]:
    return {"partner": x_api_key_name, "orders": [1, 2, 3]}

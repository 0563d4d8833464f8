"""Three deployments that call each other, bound to one application as for Ray Serve."""

from fastapi import FastAPI

from serveconf import serve
from serveconf.serve.handle import DeploymentHandle

api = FastAPI(title="shop")


@serve.deployment
class Prices:
    """What things cost."""

    def __init__(self, currency: str) -> None:
        self.currency = currency

    async def __call__(self, item: str) -> str:
        return f"{len(item)} {self.currency}"


@serve.deployment(num_replicas=2)
class Stock:
    """How many there are. Calls that come at the same time are answered together."""

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def count(self, items: list[str]) -> list[int]:
        return [7 * len(item) for item in items]


@serve.deployment
@serve.ingress(api)
class Shop:
    """What answers HTTP."""

    def __init__(self, prices: DeploymentHandle, stock: DeploymentHandle) -> None:
        self.prices, self.stock = prices, stock

    @api.get("/{item}")
    async def look(self, item: str) -> dict[str, object]:
        """Both calls are under way at the same time."""
        price, count = self.prices.remote(item), self.stock.count.remote(item)
        return {"item": item, "price": await price, "count": await count}


app = Shop.bind(Prices.bind("EUR"), Stock.bind())

"""The same app in two colours: blue is what everybody gets, green is what comes next."""

from fastapi import FastAPI


def make_app(color: str) -> FastAPI:
    app = FastAPI(title=f"Shop, {color}")

    @app.get("/")
    def home() -> dict[str, str]:
        return {"color": color}

    return app

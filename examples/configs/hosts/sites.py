"""Two sites that differ by the name under which they are asked for, and one that is tried out."""

from fastapi import FastAPI


def make_site(name: str) -> FastAPI:
    app = FastAPI(title=name)

    @app.get("/")
    def home() -> dict[str, str]:
        return {"site": name}

    return app

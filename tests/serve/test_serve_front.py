"""``http_options`` in Python: the spec's keys, and Starlette's Middleware objects."""

from __future__ import annotations

import enum

import pytest
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from serveconf.errors import AuthorError
from serveconf.serve.deploying import http_options_spec
from serveconf.serve.parcel import Parcel
from serveconf.spec.models import Location


class Place(enum.StrEnum):
    EVERYWHERE = "EveryNode"


def test_only_what_is_said_is_sent():
    said, full = http_options_spec({"port": 8100}, Parcel())
    assert said == {"port": 8100}
    assert (full.host, full.port) == ("127.0.0.1", 8100)
    assert http_options_spec({}, Parcel())[0] == {}


@pytest.mark.parametrize(
    ("location", "meant"),
    [("HeadOnly", "HeadOnly"), (Place.EVERYWHERE, "EveryNode"), ("NoServer", "NoServer"), (None, "NoServer")],
)
def test_every_location_of_ray_serve_is_known(location, meant):
    said, full = http_options_spec({"location": location}, Parcel())
    assert said == {"location": meant}
    assert full.location is Location(meant)


def test_middleware_objects_and_mappings_stand_side_by_side():
    said, _ = http_options_spec(
        {
            "middlewares": [
                Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"]),
                {"import_path": "starlette.middleware.gzip:GZipMiddleware"},
            ]
        },
        Parcel(),
    )
    assert said["middlewares"] == [
        {
            "import_path": "starlette.middleware.cors:CORSMiddleware",
            "kwargs": {"allow_origins": ["*"], "allow_methods": ["*"]},
        },
        {"import_path": "starlette.middleware.gzip:GZipMiddleware"},
    ]


def test_a_middleware_with_any_arguments_travels_by_value():
    said, _ = http_options_spec({"middlewares": [Middleware(CORSMiddleware, allow_origins=("*",))]}, Parcel())
    assert said["middlewares"] == [{"import_path": "__main__:middleware_0_CORSMiddleware"}]


def test_all_wrong_keys_are_named_together_with_what_was_meant():
    with pytest.raises(AuthorError) as caught:
        http_options_spec({"prot": 1, "workers": 0}, Parcel())
    assert "did you mean 'port'" in str(caught.value)
    assert "workers: must be at least 1" in str(caught.value)


@pytest.mark.parametrize("wrong", [{"middlewares": CORSMiddleware}, {"middlewares": [CORSMiddleware]}, 8000])
def test_what_is_no_option_is_refused(wrong):
    with pytest.raises(AuthorError):
        http_options_spec(wrong, Parcel())

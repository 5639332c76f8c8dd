"""What is remembered of a pusher."""

from __future__ import annotations

from api.v1.agents import tag_meta
from tests.v1client import AGENT

NOW = 1_795_437_699.9


def test_an_engine_is_recognised_by_its_agent() -> None:
    """Name and value pairs, whatever stands between them."""
    assert tag_meta(AGENT, NOW) == {
        "last_update": 1_795_437_699,
        "docker_version": "1.13.1",
        "docker_go_version": "go1.7.5",
        "arch": "amd64",
        "kernel": "4.4.0",
        "os": "linux",
    }


def test_what_is_not_said_is_left_out() -> None:
    """A script leaves only the time."""
    assert tag_meta("", NOW) == tag_meta("curl/8.0", NOW) == {"last_update": 1_795_437_699}


def test_the_last_of_two_wins_and_platforms_are_lower_case() -> None:
    """As the reference's dict did it."""
    meta = tag_meta("docker/1 docker/2 os/LINUX arch/AMD64", NOW)
    assert (meta["docker_version"], meta["os"], meta["arch"]) == ("2", "linux", "amd64")


def test_a_stranger_cannot_store_much() -> None:
    """Header values have a limit of their own here."""
    assert tag_meta("docker/" + "x" * 60_000, NOW)["docker_version"] == "x" * 128


def test_an_endless_agent_is_looked_through_once() -> None:
    """A word of a million letters would keep a worker busy for hours if each of them began a search of its own."""
    assert "docker_version" not in tag_meta("a" * 1_000_000, 0)
    assert tag_meta("x" * 1_000_000 + " docker/1.2", 0)["docker_version"] == "1.2"

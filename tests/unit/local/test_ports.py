"""Ports: a free one, the wanted one, and what is said of one that somebody has."""

from __future__ import annotations

import socket

import pytest

from tidemill.local.errors import PortBusy
from tidemill.local.ports import LOOPBACK, claim_port, free_port


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, free_port()))


@pytest.mark.parametrize("wanted", [None, 0])
def test_no_wish_gives_a_free_port(wanted: int | None) -> None:
    assert 0 < claim_port(wanted, what="a test", option="--port") < 65536


def test_the_wanted_port_when_nobody_has_it() -> None:
    port = free_port()
    assert claim_port(port, what="a test", option="--port") == port


def test_a_busy_port_says_which_and_what_to_do() -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PortBusy) as busy:
            claim_port(port, what="Airflow's pages", option="--airflow-port")
    assert busy.value.port == port
    assert str(busy.value) == (
        f"port {port} on 127.0.0.1, wanted for Airflow's pages, is in use: stop what uses it, "
        "or choose another with --airflow-port (0 takes any free one)"
    )


def test_a_number_that_is_no_port() -> None:
    with pytest.raises(PortBusy, match="a number from 1 to 65535"):
        claim_port(65536, what="a test", option="--port")

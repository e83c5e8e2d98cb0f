"""Temporary changes to process-wide state."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from thirtytwo.process import hub_offline, is_own_process, own_process, quiet_loggers, some_home


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("thirtytwo.tests.process")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


def test_loggers_are_put_back_after_an_error(logger: logging.Logger) -> None:
    def fail() -> None:
        with quiet_loggers(logger.name):
            assert logger.level == logging.ERROR
            assert not logger.getChild("below").isEnabledFor(logging.WARNING)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert logger.level == logging.INFO


def test_a_change_within_a_change_ends_with_the_value_that_it_found(logger: logging.Logger) -> None:
    with quiet_loggers(logger.name, level=logging.CRITICAL):
        with quiet_loggers(logger.name, level=logging.ERROR):
            assert logger.level == logging.ERROR
        assert logger.level == logging.CRITICAL, "the outer change still holds"
    assert logger.level == logging.INFO


def test_the_last_of_two_threads_puts_back(logger: logging.Logger) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet_loggers(logger.name):
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with quiet_loggers(logger.name):
        thread.start()
        assert inside.wait(60)
    assert logger.level == logging.ERROR, "the other thread still wants it quiet"
    leave.set()
    thread.join()
    assert logger.level == logging.INFO


def test_the_hub_is_asked_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def fail() -> None:
        with hub_offline():
            assert constants.HF_HUB_OFFLINE
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not constants.HF_HUB_OFFLINE


def test_a_process_is_owned_for_a_while() -> None:
    assert not is_own_process()
    with own_process(), own_process():
        assert is_own_process()
    assert not is_own_process()


def test_a_home_is_made_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.home()
    with some_home():
        assert Path.home() == before
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(RuntimeError):
        Path.home()
    with some_home():
        home = Path.home()
        assert home.is_dir()
    assert not home.exists()
    assert "HOME" not in os.environ

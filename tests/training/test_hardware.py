"""Automatic choices with their reasons, and unavailable devices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from thirtytwo.config.recipe import TrainSettings
from thirtytwo.errors import RecipeError, ThirtytwoError
from thirtytwo.training.hardware import choose_hardware, describe_machine


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    yield
    torch.set_num_threads(threads)


def test_every_choice_has_a_reason() -> None:
    hardware = choose_hardware(TrainSettings(), "auto")
    assert hardware.device == torch.device("cpu")
    choices = {choice.what: choice for choice in hardware.choices}
    assert {"device", "precision", "memory format", "compile", "threads"} <= set(choices)
    assert all(choice.reason and choice.value for choice in hardware.choices)
    assert choices["precision"].value == str(hardware.precision).removeprefix("torch.")
    assert choices["threads"].value == str(hardware.threads)
    assert choices["compile"].value == "off"


def test_explicit_settings_are_kept() -> None:
    settings = TrainSettings(precision="bfloat16", memory_format="contiguous", compile="on", threads=1)
    hardware = choose_hardware(settings, "cpu")
    assert hardware.precision == torch.bfloat16
    assert hardware.lightning_precision == "bf16-mixed"
    assert hardware.memory_format == torch.contiguous_format
    assert hardware.compile
    assert hardware.threads == torch.get_num_threads() == 1
    given = {choice.what: choice.reason for choice in hardware.choices}
    assert "--device" in given["device"]
    assert {given[what] for what in ("precision", "memory format", "threads")} == {"set in the recipe"}
    assert given["compile"].startswith("set in the recipe; the first step")


@pytest.mark.parametrize(
    ("features", "dtype", "why"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16, "AMX"),
        ({"avx512_bf16": True}, torch.bfloat16, "AVX512-BF16"),
        ({"avx2": True}, torch.float32, "no bfloat16"),
    ],
)
def test_precision_of_a_cpu(
    features: dict[str, bool], dtype: torch.dtype, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    hardware = choose_hardware(TrainSettings(), "cpu")
    assert hardware.precision == dtype
    assert hardware.matrix_arithmetic == dtype
    assert why in next(choice.reason for choice in hardware.choices if choice.what == "precision")


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpu_is_chosen_if_available(native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    for device in ("auto", "cuda"):
        hardware = choose_hardware(TrainSettings(), device)
        assert hardware.device == torch.device("cuda", 0)
        assert hardware.precision == dtype
    assert choose_hardware(TrainSettings(), "cpu").device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "parts"),
    [
        ("cuda", ["'cuda'", "cpu", "--device"]),
        ("mps", ["'mps'", "cpu", "--device"]),
        ("tpu", ["'tpu'", "auto", "cpu", "cuda", "mps"]),
    ],
)
def test_absent_device(device: str, parts: list[str]) -> None:
    with pytest.raises(ThirtytwoError) as caught:
        choose_hardware(TrainSettings(), device)
    assert all(part in str(caught.value) for part in parts)


def test_float16_on_a_cpu() -> None:
    with pytest.raises(RecipeError, match="float16"):
        choose_hardware(TrainSettings(precision="float16"), "cpu")


def test_machine_is_described() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert set(machine) == {"cpu", "cores", "memory_gb", "gpu", "system"}
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["gpu"] is None

"""Pretrained weights of a run, a file and timm, and the errors where they do not fit."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from thirtytwo.config.recipe import ModelSettings
from thirtytwo.errors import OfflineError, RecipeError, RunError, ThirtytwoError, UnknownNameError
from thirtytwo.models import MODELS, Network
from thirtytwo.models.pretrained import run_settings, source_kind, start_from, weights_name

GROUPS = [{"width": 8}, {"width": 16}]
RESNET: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
VIT: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
TEN = tuple(f"class {number}" for number in range(10))
FOUR = TEN[:4]
Pretrain = Callable[..., Any]


def model(name: str, **options: Any) -> ModelSettings:
    return ModelSettings(name=name, options=options)


def fresh(settings: ModelSettings, classes: int, seed: int = 9) -> Network:
    torch.manual_seed(seed)
    return MODELS.get(settings.name)(classes, settings.options)


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], part: str) -> bool:
    names = [name for name in one if name.startswith(part)]
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize(
    ("classes", "head"), [(TEN, True), (FOUR, False), (tuple(reversed(TEN)), False)], ids=["same", "fewer", "others"]
)
def test_last_layer_is_loaded_only_for_the_same_classes(
    classes: tuple[str, ...], head: bool, pretrain: Pretrain
) -> None:
    settings = model("fastnet", groups=GROUPS)
    path, trained = pretrain(settings, TEN)
    net = fresh(settings, len(classes))
    before = weights(net)
    start = start_from(net, str(path), settings, classes)
    for part in ("stem", "groups"):
        assert same(weights(net), weights(trained), part)
        assert not same(weights(net), before, part)
    assert torch.equal(net.head.weight, trained.head.weight if head else before["head.weight"])  # type: ignore[union-attr, arg-type]
    assert start.fresh == (() if head else ("head.weight",))
    assert start.statistics == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert ("all but the head" in start.choices[0].value) is not head


def test_weights_file_equals_its_run(pretrain: Pretrain) -> None:
    settings = model("fastnet", groups=GROUPS)
    path, trained = pretrain(settings, TEN)
    net = fresh(settings, 4)
    start = start_from(net, str(path / "weights.safetensors"), settings, FOUR)
    assert same(weights(net), weights(trained), "groups")
    assert start.statistics == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def test_file_without_metadata(tmp_path: Path) -> None:
    settings = model("fastnet", groups=GROUPS)
    trained = fresh(settings, 10, seed=1)
    save_file(weights(trained), tmp_path / "w.safetensors")
    net = fresh(settings, 4)
    start = start_from(net, str(tmp_path / "w.safetensors"), settings, FOUR)
    assert same(weights(net), weights(trained), "groups")
    assert start.statistics is None


@pytest.mark.parametrize(("dense", "taken"), [([8, 4], True), ([8, 5], False)])
def test_dense_layers_are_loaded_if_they_fit(dense: list[int], taken: bool, pretrain: Pretrain) -> None:
    settings = model("textbook", widths=[4, 8], dense=[8, 4], convolutions=1)
    path, trained = pretrain(settings, TEN)
    ours = model("textbook", widths=[4, 8], dense=dense, convolutions=1)
    net = fresh(ours, 4)
    start = start_from(net, str(path), ours, FOUR)
    assert same(weights(net), weights(trained), "stages")
    assert all(name.startswith("head.") for name in start.fresh) is taken


def test_mismatch_lists_parameters_and_shapes(pretrain: Pretrain) -> None:
    path, _ = pretrain(model("fastnet", groups=GROUPS), TEN)
    ours = model("fastnet", groups=[{"width": 8}, {"width": 24}])
    net = fresh(ours, 10)
    before = weights(net)
    with pytest.raises(RecipeError) as raised:
        start_from(net, str(path), ours, TEN)
    for part in ("groups.1.widen.weight", "24×8×3×3", "16×8×3×3", str(path)):
        assert part in raised.value.message
    assert "transfer.network=run" in str(raised.value.fix)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items()), "no weight was loaded"
    other = model("preresnet18")
    with pytest.raises(RecipeError) as raised:
        start_from(fresh(other, 10), str(path), other, TEN)
    assert all(part in raised.value.message for part in ("preresnet18", "stem.weight", "64×3×3×3"))


def test_weights_that_fit_but_give_other_features(pretrain: Pretrain) -> None:
    path, _ = pretrain(model("fastnet", groups=GROUPS, activation="silu"), TEN)
    ours = model("fastnet", groups=GROUPS)
    with pytest.raises(RecipeError) as raised:
        start_from(fresh(ours, 10), str(path), ours, TEN)
    assert all(part in raised.value.message for part in (str(path), "activation", "None", "'silu'"))
    assert "transfer.network=run" in str(raised.value.fix)
    harmless = model("fastnet", groups=GROUPS, activation="silu", norm_momentum=0.1)
    start_from(fresh(harmless, 10), str(path), harmless, TEN)


def test_run_settings(pretrain: Pretrain) -> None:
    path, _ = pretrain(model("fastnet", groups=GROUPS), TEN)
    found = run_settings(str(path))
    assert found["model"] == {"name": "fastnet", "options": {"groups": GROUPS}}
    assert found["optimizer"]["name"] == "muon"
    assert found["data"] == {"image_size": 16}


@pytest.mark.parametrize(
    ("architecture", "arguments", "part"),
    [("resnet18", RESNET, "body.layer1"), ("vit_tiny_patch16_224", VIT, "body.blocks")],
)
@pytest.mark.parametrize("classifier", [1000, 7, 0])
def test_file_of_timm(classifier: int, architecture: str, arguments: dict[str, Any], part: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published: Any = timm.create_model(architecture, num_classes=classifier, **arguments)
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    settings = model("timm", architecture=architecture, pretrained=True, input_size=64, arguments=arguments)
    net = fresh(settings, 10)
    start = start_from(net, str(tmp_path / "w.safetensors"), settings, TEN)
    theirs = {f"body.{name}": value for name, value in published.state_dict().items()}
    assert same({name: value for name, value in weights(net).items() if name.startswith(part)}, theirs, part)
    assert start.fresh == ("head.weight", "head.bias")
    assert start.statistics == (tuple(published.pretrained_cfg["mean"]), tuple(published.pretrained_cfg["std"]))
    if architecture.startswith("vit"):
        assert weights(net)["body.pos_embed"].shape == (1, 17, 16), "4×4 patches of 64 pixels, resampled from 14×14"
    else:
        images = torch.randn((2, 3, 64, 64))
        with torch.inference_mode():
            published.eval()
            expected = published.forward_head(published.forward_features(images), pre_logits=True)
            torch.testing.assert_close(net.eval().pool(net.forward_features(images)), expected)


def test_file_of_timm_that_does_not_fit(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18", **RESNET).state_dict(), tmp_path / "w.safetensors")
    settings = model("timm", architecture="resnet18", pretrained=True)
    with pytest.raises(RecipeError) as raised:
        start_from(fresh(settings, 10), str(tmp_path / "w.safetensors"), settings, TEN)
    assert all(part in raised.value.message for part in ("w.safetensors", "resnet18", "layer1.0.conv1"))


def test_hub_weights_are_loaded_by_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: Any = timm.create_model("resnet18", **RESNET)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(repo_id: str, filename: str, **_: Any) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    settings = model("timm", architecture="resnet18", pretrained=True, arguments=RESNET)
    net = fresh(settings, 10)
    start = start_from(net, "a1_in1k", settings, TEN)
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    theirs = {f"body.{name}": value for name, value in published.state_dict().items()}
    assert same({name: value for name, value in weights(net).items() if "layer" in name}, theirs, "body.layer")
    assert start.origin == "timm's resnet18.a1_in1k"


@pytest.mark.slow
def test_offline_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without a network, neither the hub's client nor timm retries or logs: one quick error."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    settings = model("timm", architecture="resnet18", pretrained=True)
    clock = time.monotonic()
    with pytest.raises(OfflineError):
        start_from(fresh(settings, 10), "timm", settings, TEN)
    assert time.monotonic() - clock < 15
    assert not caplog.messages
    assert not capfd.readouterr().err


@pytest.mark.slow
def test_a_lost_connection_is_as_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losing_hub: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", losing_hub)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", f"{losing_hub}/{{repo_id}}/{{filename}}"
    )
    settings = model("timm", architecture="resnet18", pretrained=True)
    with pytest.raises(OfflineError):
        start_from(fresh(settings, 10), "timm", settings, TEN)


@pytest.mark.slow
def test_offline_error_names_file_and_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    settings = model("timm", architecture="resnet18", pretrained=True)
    with pytest.raises(OfflineError) as raised:
        start_from(fresh(settings, 10), "timm", settings, TEN)
    assert "resnet18" in raised.value.message
    assert "model.safetensors of timm/resnet18" in str(raised.value.fix)
    assert "--pretrained resnet18" in str(raised.value.fix)


@pytest.mark.parametrize(
    ("pretrained", "architecture", "expected"),
    [
        ("timm", "resnet50", "resnet50"),
        ("timm", "resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("a2_in1k", "resnet50.a1_in1k", "resnet50.a2_in1k"),
        ("resnet50.a3_in1k", "resnet50", "resnet50.a3_in1k"),
        ("a9_in1k", "resnet50", UnknownNameError),
        ("resnet18.a1_in1k", "resnet50", RecipeError),
        ("timm", "test_vit_nope", RecipeError),
    ],
)
def test_tags(pretrained: str, architecture: str, expected: str | type[ThirtytwoError]) -> None:
    settings = model("timm", architecture=architecture)
    if isinstance(expected, str):
        assert weights_name(pretrained, settings) == expected
        return
    with pytest.raises(expected) as raised:
        weights_name(pretrained, settings)
    assert pretrained in str(raised.value) or architecture.partition(".")[0] in str(raised.value)


def test_timm_has_no_weights_for_other_networks() -> None:
    with pytest.raises(RecipeError) as raised:
        weights_name("rnus", model("fastnet"))
    assert "'rnus'" in raised.value.message
    assert "'fastnet'" in raised.value.message


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("weights.pth", RecipeError),
        ("pytorch_model.bin", RecipeError),
        ("gone.safetensors", RecipeError),
        ("notes.txt", RecipeError),
        ("runs/gone", RunError),
        ("empty", RunError),
    ],
)
def test_unusable_sources_are_refused(
    name: str, error: type[ThirtytwoError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("weights.pth", "pytorch_model.bin", "notes.txt"):
        Path(file).write_bytes(b"x")
    Path("empty").mkdir()
    with pytest.raises(error) as raised:
        source_kind(name)
    assert name in raised.value.message
    assert raised.value.fix


@pytest.mark.parametrize("place", [".", "Anna's weights"])
def test_suggested_conversion_works(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(place).mkdir(exist_ok=True)
    torch.save({"a": torch.ones(2)}, Path(place) / "w.pth")
    with pytest.raises(RecipeError) as raised:
        source_kind(str(Path(place) / "w.pth"))
    (code,) = shlex.split(str(raised.value.fix).partition("python -c ")[2])
    exec(code, {})
    assert source_kind(str(Path(place) / "w.safetensors")) == "file"


@pytest.mark.parametrize("content", [b"", b"junk" * 9])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    settings = model("fastnet", groups=GROUPS)
    with pytest.raises(RunError) as raised:
        start_from(fresh(settings, 10), str(tmp_path / "w.safetensors"), settings, TEN)
    assert str(tmp_path / "w.safetensors") in raised.value.message


def test_unfinished_run(pretrain: Pretrain) -> None:
    settings = model("fastnet", groups=GROUPS)
    path, _ = pretrain(settings, TEN)
    (path / "weights.safetensors").unlink()
    with pytest.raises(RunError) as raised:
        start_from(fresh(settings, 10), str(path), settings, TEN)
    assert str(path) in raised.value.message
    assert f"--resume --run {path}" in str(raised.value.fix)

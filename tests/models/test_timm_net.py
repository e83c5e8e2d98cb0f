"""Networks of timm: adaptation to small images, choices, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.errors import RecipeError, ThirtytwoError, UnknownNameError
from thirtytwo.models import MODELS
from thirtytwo.models.base import features_of
from thirtytwo.models.small_stems import SMALL_STEMS

SHALLOW = {"depth": 2}
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def net(architecture: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return MODELS.get("timm")(5, {"architecture": architecture, **options})


@pytest.mark.parametrize(
    ("architecture", "options", "resolved", "expected"),
    [
        ("resnet18", {}, ("stem", 0), ["stem, a 3×3 convolution"]),
        ("efficientnet_b0", {}, ("stem", 0), ["stem, no stride in the stem"]),
        ("vit_tiny_patch16_224", {"arguments": SHALLOW}, ("stem", 32), ["stem, patches of an eighth", "32×32"]),
        ("resnet18", {"pretrained": True}, ("upsample", 128), ["upsample, enlarged", "128×128"]),
        ("resnet18", {"pretrained": True, "input_size": 64}, ("upsample", 64), ["upsample, enlarged", "64×64"]),
        ("resnet18", {"small_images": "none"}, ("none", 0), ["none, the network as published"]),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {"pretrained": True, "arguments": SHALLOW}, ("upsample", 224),
         ["upsample, enlarged", "224×224"]),
        ("mobilevit_xxs", {}, ("upsample", 128), ["upsample, enlarged", "128×128"]),
    ],
)  # fmt: skip
def test_choices_have_values_and_reasons(
    architecture: str, options: dict[str, Any], resolved: tuple[str, int], expected: list[str]
) -> None:
    made = net(architecture, **options)
    assert (made.resolved_options["small_images"], made.resolved_options["input_size"]) == resolved
    assert len(made.choices) == len(expected)
    for choice, start in zip(made.choices, expected, strict=True):
        assert choice.value.startswith(start)
        assert choice.reason
    again = net(
        architecture,
        **options,
        **{key: made.resolved_options[key] for key in made.resolved_options if key not in options},
    )
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in made.state_dict().items()
    }


@pytest.mark.parametrize("architecture", ["resnet50d", "resnetv2_50", "mobilenetv3_small_050", "regnety_002"])
def test_other_families_give_four_by_four_maps(architecture: str) -> None:
    made = net(architecture).eval()
    with torch.inference_mode():
        assert made.forward_features(torch.randn(1, 3, 32, 32)).shape[2:] == (4, 4)


@pytest.mark.slow
def test_pretrained_layers_keep_their_published_shape() -> None:
    for architecture in ("resnet18", "densenet121"):
        import timm

        published = timm.create_model(architecture).state_dict()
        made = net(architecture, pretrained=True).body.state_dict()
        assert {name: value.shape for name, value in made.items()} == {
            name: value.shape for name, value in published.items() if not name.startswith(("fc.", "classifier."))
        }


def test_pretrained_networks_have_statistics() -> None:
    assert net("resnet18").statistics is None
    assert net("resnet18", pretrained=True).statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_images_are_enlarged_inside_the_network() -> None:
    made = net("resnet18", input_size=64, arguments=TINY).eval()
    images = torch.randn(2, 3, 32, 32)
    larger = F.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        torch.testing.assert_close(made(images), made(larger))
        plain = net("resnet18", arguments=TINY).eval()
        torch.testing.assert_close(made(images), plain(larger))


def test_fixed_size_networks_accept_other_sizes() -> None:
    made = net("vit_tiny_patch16_224", arguments=SHALLOW).eval()
    with torch.inference_mode():
        assert made(torch.randn(2, 3, 24, 24)).shape == (2, 5)


def test_logits_equal_timm() -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=5, **TINY).eval()
    made = net("resnet18", small_images="none", arguments=TINY).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(made(images), theirs(images))


def test_dense_head() -> None:
    made = net("resnet18", head=[16, 8], head_dropout=0.5, arguments=TINY)
    assert [type(layer) for layer in made.hidden] == [nn.Linear, nn.ReLU, nn.Dropout] * 2
    assert made.head.in_features == 8
    assert features_of(made, torch.randn(2, 8, 4, 4)).shape == (2, 8)
    assert not made.has_heatmaps
    assert made.parameter_groups()["head"] == list(made.head.parameters())


def test_dropout_reaches_timm() -> None:
    made = net("resnet18", drop_rate=0.3, drop_path_rate=0.2, arguments=TINY)
    assert made.body.drop_rate == 0.3
    assert made.body.layer4[0].drop_path.drop_prob == pytest.approx(0.2)


def test_only_matrices_are_filters() -> None:
    made = net("vit_tiny_patch16_224", arguments=SHALLOW)
    roles = made.parameter_groups()
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    filters = {names[id(parameter)] for parameter in roles["filters"]}
    rest = {names[id(parameter)] for parameter in roles["rest"]}
    assert {"body.patch_embed.proj.weight", "body.blocks.0.attn.qkv.weight", "body.blocks.1.mlp.fc2.weight"} <= filters
    assert {"body.pos_embed", "body.cls_token", "body.norm.weight", "body.blocks.0.attn.qkv.bias"} <= rest
    assert [names[id(parameter)] for parameter in roles["head"]] == ["head.weight", "head.bias"]
    tables = net("swin_tiny_patch4_window7_224", arguments={"depths": [1, 1, 1, 1], "embed_dim": 24})
    by_name = dict(tables.named_parameters())
    in_rest = {id(parameter) for parameter in tables.parameter_groups()["rest"]}
    assert all(id(value) in in_rest for name, value in by_name.items() if "relative_position_bias_table" in name)


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_tap_receives_patch_tokens(architecture: str) -> None:
    made = net(architecture, arguments=SHALLOW).eval()
    images, seen = torch.randn(2, 3, 32, 32), list[Tensor]()

    def silenced(patches: Tensor) -> Tensor:
        seen.append(patches)
        return torch.zeros_like(patches)

    with torch.no_grad():
        logits = made(images)
        changed = made.forward_with_tap(images, silenced)
        assert seen[0].shape == (2, 192, 8, 8)
        assert not torch.allclose(logits, changed)
        assert torch.equal(made(images), logits)  # the tap is gone
        tokens = made.body._pos_embed(made.body.patch_embed(images))
        before = made.body.blocks[-1].norm1(made.body.blocks[0](tokens))
        prefix = made.body.num_prefix_tokens
        expected = before[:, prefix:].transpose(1, 2).reshape(2, 192, 8, 8)
    torch.testing.assert_close(seen[0], expected)


def test_new_networks_are_in_training_mode_and_depend_only_on_the_seed() -> None:
    one, other = (
        net("convnext_atto", arguments={"depths": [1, 1, 1, 1]}),
        net("convnext_atto", arguments={"depths": [1, 1, 1, 1]}),
    )
    assert all(module.training for module in one.modules())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("options", "kind", "parts"),
    [
        ({"architecture": "resnet51"}, UnknownNameError, ["'resnet51'", "'resnet50'"]),
        ({"architecture": "hf-hub:owner/net"}, UnknownNameError, ["'hf-hub:owner/net'"]),
        ({}, RecipeError, ["'architecture'"]),
        ({"architecture": "resnet18", "smal_images": "stem"}, RecipeError, ["'smal_images'", "'small_images'"]),
        ({"architecture": "mobilevit_xxs", "small_images": "stem"}, RecipeError, ["mobilevit_xxs", "'upsample'"]),
        ({"architecture": "resnet18", "arguments": {"depht": 2}}, RecipeError, ["resnet18", "depht"]),
        (
            {"architecture": "levit_128s", "input_size": 32, "small_images": "none"},
            RecipeError,
            ["32×32"],
        ),
    ],
)
def test_invalid_options_raise_errors(options: dict[str, Any], kind: type[ThirtytwoError], parts: list[str]) -> None:
    with pytest.raises(kind) as caught:
        MODELS.get("timm")(5, options)
    assert all(part in str(caught.value) for part in parts)
    assert "model.options of timm" in str(caught.value)


def test_families_are_timm_modules() -> None:
    import timm

    modules = {timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in timm.list_models()}
    assert set(SMALL_STEMS) <= modules

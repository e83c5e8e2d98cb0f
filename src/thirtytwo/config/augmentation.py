"""The table `[augment]` of recipes: augmentation of training images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, model_validator

from thirtytwo.config.settings import Settings


class ImageSettings(Settings):
    """Augmentation of single training images; every strength is sampled anew for each image."""

    flip: Literal["none", "random", "alternating"] = "random"
    """Horizontal flip; `alternating`: random in the first epoch, then flipped every other epoch (arXiv 2404.00498)."""
    translate: int = Field(0, ge=0, le=16)
    """Maximum translation in pixels, in both directions; also known as random crop with padding."""
    cutout: int = Field(0, ge=0, le=1024)
    """Side in pixels of one square replaced by the mean color; 0: none (arXiv 1708.04552)."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Maximum rotation in degrees, in either direction."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Maximum relative change of scale: 0.2 samples factors from 0.8 to 1.2."""
    shear: float = Field(0.0, ge=0, le=60)
    """Maximum shear in degrees, in either direction."""
    crop: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Random resized crop: smallest and largest share of the image's area that a crop covers, such as [0.35, 1.0], as
    in torchvision's RandomResizedCrop; empty: off."""
    crop_ratio: tuple[Annotated[float, Field(gt=0)], ...] = (0.75, 1.3333)
    """Smallest and largest ratio of a crop's width to its height."""
    fill: Literal["reflect", "edge", "mean"] = "reflect"
    """How translation, rotation, zoom and shear fill the uncovered border: with the mirrored image, its edge pixels, or
    the mean color."""
    brightness: float = Field(0.0, ge=0, le=2)
    """Maximum relative change of brightness: 0.4 samples factors from 0.6 to 1.4."""
    contrast: float = Field(0.0, ge=0, le=2)
    """Maximum relative change of contrast, as with `brightness`."""
    saturation: float = Field(0.0, ge=0, le=2)
    """Maximum relative change of saturation, as with `brightness`."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Maximum rotation of the hue, as a fraction of the color circle, in either direction."""
    policy: str | tuple[str, ...] = "none"
    """Published policy (`autoaugment`, `randaugment`, `trivialaugment` or `augmix`) or the name of a registered
    augmentation; a list is applied in its order."""
    magnitude: Annotated[float, Field(ge=0, le=30)] | None = None
    """Magnitude of the policy, 0 to 30; the published value where not given: 9, or 30 for `trivialaugment`, which
    samples from 0 to it. `autoaugment` has no magnitude."""
    num_ops: Annotated[int, Field(ge=1, le=10)] | None = None
    """Number of operations that `randaugment` applies to each image; 2 where not given."""
    erase: float = Field(0.0, ge=0, le=1)
    """Probability that a rectangle of 2 to 33 % of the image is replaced by noise (random erasing, arXiv
    1708.04896)."""

    @model_validator(mode="after")
    def _check_crop(self) -> ImageSettings:
        if self.crop and (len(self.crop) != 2 or self.crop[0] > self.crop[1]):
            raise ValueError("crop must be a smallest and a largest share of the area, such as [0.35, 1.0], or []")
        if len(self.crop_ratio) != 2 or self.crop_ratio[0] > self.crop_ratio[1]:
            raise ValueError("crop_ratio must be a smallest and a largest ratio, such as [0.75, 1.33]")
        return self

    @property
    def policies(self) -> tuple[str, ...]:
        """`policy` as a tuple without `none`."""
        names = (self.policy,) if isinstance(self.policy, str) else self.policy
        return tuple(name for name in names if name != "none")


POLICY_KEYS = {
    "autoaugment": (),
    "randaugment": ("magnitude", "num_ops"),
    "trivialaugment": ("magnitude",),
    "augmix": ("magnitude",),
}
"""Keys of `[augment]` that each built-in policy reads; policies of other packages may read both."""


class AugmentSettings(ImageSettings):
    """Augmentation of training images, in batches on the device; every strength is sampled anew for each image."""

    mixup: float = Field(0.0, ge=0, le=1000)
    """α of MixUp: two images and their labels are blended with a weight from Beta(α, α); 0: off (arXiv 1710.09412)."""
    cutmix: float = Field(0.0, ge=0, le=1000)
    """α of CutMix: a box of another image is pasted in and labels are mixed by its area; 0: off (arXiv 1905.04899)."""
    mix_share: float = Field(1.0, ge=0, le=1)
    """Fraction of the images that are mixed; where MixUp and CutMix are both on, each is equally likely."""
    classes: dict[str, ImageSettings] = Field(default_factory=dict)
    """`[augment.classes.cat]`: overrides any key above `mixup` for images of one class; other keys keep their
    values."""

    @field_serializer("classes")
    def _drop_unset(self, classes: dict[str, ImageSettings]) -> dict[str, Any]:
        return {name: own.model_dump(mode="json", exclude_unset=True) for name, own in classes.items()}

    @model_validator(mode="after")
    def _check_policy_options(self) -> AugmentSettings:
        for name in (None, *self.classes):
            own = self if name is None else self.classes[name]
            policies = self.of_class(name).policies
            read = {key for policy in policies for key in POLICY_KEYS.get(policy, ("magnitude", "num_ops"))}
            for key in ("magnitude", "num_ops"):
                if getattr(own, key) is not None and key not in read:
                    place = key if name is None else f"classes.{name}.{key}"
                    named = " and ".join(policies) or "none"
                    raise ValueError(f"{place!r} is set, but the policy {named!r} does not use it")
        return self

    @property
    def crops(self) -> bool:
        """Whether images of any class are cropped at random."""
        return bool(self.crop) or any(own.crop for own in self.classes.values())

    def of_class(self, name: str | None) -> ImageSettings:
        """Settings for one class; None: for classes without a table of their own."""
        own = self.classes.get(name) if name is not None else None
        overridden = {key: getattr(own, key) for key in own.model_fields_set} if own is not None else {}
        return self.model_copy(update={**overridden, "classes": {}})

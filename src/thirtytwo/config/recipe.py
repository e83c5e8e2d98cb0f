"""Recipes: one TOML file is one way to train, checked before anything else happens."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import Field, field_serializer, model_validator

from thirtytwo.config.settings import Settings as Settings
from thirtytwo.config.settings import parse_settings as parse_settings
from thirtytwo.errors import RecipeError, UnknownNameError, did_you_mean


class DataSettings(Settings):
    """What is trained on, and what is held out for choices."""

    val_fraction: float = Field(0.1, ge=0.0, le=0.5)
    """Part of train held out, about as much of each class, where the data has no validation split of its own."""
    split_seed: int = Field(0, ge=0)
    """Decides, with the content of each image, which are held out, and which are test where the data has no test split;
    apart from `seed`, so that runs with other seeds are scored on the same images."""
    group_by: str = ""
    """What stays in one part when images are held out, such as all images of one patient: a regular expression on
    files' paths, whose first group (else all it matches) names the group, or a column; empty: each image alone."""
    train_on: Literal["train", "all"] = "train"
    """`all` adds the validation rows to training once every choice is fixed; needs `calibrate_from`."""
    calibrate_from: str = ""
    """Run directory of the twin that held validation out; gives temperature and threshold under `train_on = "all"`."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | Literal["auto"] = "auto"
    """Side of the square the network sees, in pixels; `auto`: the data's own up to 32, else 32."""
    resize: Literal["crop", "pad", "squash"] = "crop"
    """How other shapes become that square: cut the centre, add borders, or change the aspect."""
    limit_train: int = Field(0, ge=0)
    """Train on this many images (stratified, seeded), validation not counted; 0: all."""


class PictureSettings(Settings):
    """What happens to training images one by one; every amount is drawn anew for each of them."""

    flip: Literal["none", "random", "alternating"] = "random"
    """Left-right mirroring; `alternating`: by chance in the first epoch, then every other epoch (arXiv 2404.00498)."""
    translate: int = Field(0, ge=0, le=16)
    """Shift by up to this many pixels each way; also known as random crop with padding."""
    cutout: int = Field(0, ge=0)
    """Side of one square set to the mean colour; 0: none (arXiv 1708.04552)."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Turn by up to this many degrees either way."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Shrink or enlarge by up to this part: 0.2 gives sizes from 0.8 to 1.2."""
    shear: float = Field(0.0, ge=0, le=60)
    """Slant by up to this many degrees either way."""
    fill: Literal["reflect", "edge", "mean"] = "reflect"
    """What comes in at the border when a picture is shifted, turned, zoomed or slanted: its mirror image, its outermost
    pixels, or the mean colour."""
    brightness: float = Field(0.0, ge=0, le=2)
    """Darken or lighten by up to this part: 0.4 gives factors from 0.6 to 1.4."""
    contrast: float = Field(0.0, ge=0, le=2)
    """Less or more contrast by up to this part."""
    saturation: float = Field(0.0, ge=0, le=2)
    """Paler or stronger colours by up to this part."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Turn the colour circle by up to this part of it either way."""
    policy: str | tuple[str, ...] = "none"
    """A published policy, `autoaugment`, `randaugment`, `trivialaugment` or `augmix`, or another augmentation by its
    name; a list is done in its order."""
    magnitude: Annotated[float, Field(ge=0, le=30)] | None = None
    """How strong the policy is, 0 to 30; as published when not given: 9, and 30 for `trivialaugment`, which draws
    from 0 up to it. `autoaugment` takes none."""
    num_ops: Annotated[int, Field(ge=1, le=10)] | None = None
    """Operations that `randaugment` does to each picture, one after the other; 2 when not given."""
    erase: float = Field(0.0, ge=0, le=1)
    """Chance that a rectangle of 2 to 33 % of the picture becomes noise (random erasing, arXiv 1708.04896)."""

    @property
    def policies(self) -> tuple[str, ...]:
        """`policy` as a list without `none`."""
        names = (self.policy,) if isinstance(self.policy, str) else self.policy
        return tuple(name for name in names if name != "none")


POLICY_KEYS = {
    "autoaugment": (),
    "randaugment": ("magnitude", "num_ops"),
    "trivialaugment": ("magnitude",),
    "augmix": ("magnitude",),
}
"""Which keys of `[augment]` our own policies read; those of others may read both."""


class AugmentSettings(PictureSettings):
    """What happens to training images, batched on the device; every amount is drawn anew for each image."""

    mixup: float = Field(0.0, ge=0)
    """α of MixUp: pictures and labels are blended with a share drawn from Beta(α, α); 0: never (arXiv 1710.09412)."""
    cutmix: float = Field(0.0, ge=0)
    """α of CutMix: a box of another picture is pasted in, labels mixed by area; 0: never (arXiv 1905.04899)."""
    mix_share: float = Field(1.0, ge=0, le=1)
    """Part of the pictures that are mixed; with both kinds given, either is as likely."""
    classes: dict[str, PictureSettings] = Field(default_factory=dict)
    """`[augment.classes.cat]`: any key above `mixup`, for pictures of this class alone; the rest is as for all."""

    @field_serializer("classes")
    def _only_what_was_given(self, classes: dict[str, PictureSettings]) -> dict[str, Any]:
        return {name: own.model_dump(mode="json", exclude_unset=True) for name, own in classes.items()}

    @model_validator(mode="after")
    def _policy_reads_what_is_given(self) -> AugmentSettings:
        for name in (None, *self.classes):
            given = self if name is None else self.classes[name]
            policies = self.of_class(name).policies
            read = {key for policy in policies for key in POLICY_KEYS.get(policy, ("magnitude", "num_ops"))}
            for key in ("magnitude", "num_ops"):
                if getattr(given, key) is not None and key not in read:
                    place = key if name is None else f"classes.{name}.{key}"
                    told = " and ".join(policies) or "none"
                    raise ValueError(f"{place!r} means nothing to the policy {told!r}")
        return self

    def of_class(self, name: str | None) -> PictureSettings:
        """What holds for one class; None: for those without a table of their own."""
        own = self.classes.get(name) if name is not None else None
        given = {key: getattr(own, key) for key in own.model_fields_set} if own is not None else {}
        return self.model_copy(update={**given, "classes": {}})


class ModelSettings(Settings):
    """Which network."""

    name: str
    """A row of `thirtytwo models`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What that network lets one choose; checked by the network."""


class OptimizerSettings(Settings):
    """How weights move.

    Under `muon` and `sgd` the loss is summed over the batch: SGD's rates and decay are per picture, so that another
    batch size needs no other rates, and Muon's rate is per step and knows no scale. Under timm's optimisers the loss is
    the mean over the batch, and rates and decay mean what they mean in papers.
    """

    name: str = "muon"
    """`muon`: orthogonalised momentum for convolution filters, SGD for the rest; `sgd`: SGD for all; else one of timm's
    by its name (`adamw`, `lion`, `lamb`, …), where `timm_muon` and `timm_sgd` are timm's own of those names."""
    lr: float = Field(0.24, gt=0)
    """Peak rate of the filters; with timm's optimisers of everything, per step."""
    momentum: float = Field(0.6, ge=0, lt=1)
    """Momentum of the filters; `muon` and `sgd` only."""
    lr_rest: float = Field(0.053, gt=0)
    """Peak rate of biases and normalisation; `muon` and `sgd` only."""
    lr_head: float = Field(0.67, gt=0)
    """Peak rate of the last linear layer; `muon` and `sgd` only."""
    momentum_rest: float = Field(0.85, ge=0, lt=1)
    """Nesterov momentum of biases, normalisation and head; `muon` and `sgd` only."""
    weight_decay: float = Field(0.0, ge=0)
    """What part of a weight that SGD moves is taken off per picture at peak rate; with timm's optimisers their own
    decay, of filters and head without their biases."""
    decay_all: bool = False
    """timm's only: decay biases and normalisation as well."""
    options: dict[str, Any] = Field(default_factory=dict)
    """timm's only: what else that optimiser lets one choose, such as `betas`, `eps` or `momentum`."""
    renormalise: bool = True
    """`muon` only: keep each layer's filters at the norm they started with."""
    sam: float = Field(0.0, ge=0)
    """Radius ρ of sharpness-aware minimisation, which takes two passes a step; 0: off (arXiv 2010.01412)."""

    @property
    def per_picture(self) -> bool:
        """Whether the loss is summed over the batch."""
        return self.name in ("muon", "sgd")

    @model_validator(mode="after")
    def _rate_is_meant(self) -> OptimizerSettings:
        if not self.per_picture and self.lr > ADAPTIVE_RATE and any(part in self.name for part in ADAPTIVE):
            raise ValueError(f"lr {self.lr:g} is too high for {self.name}, whose steps are that long; try lr = 0.001")
        if self.per_picture and self.options:
            raise ValueError(f"options are for timm's optimisers; {self.name} has its own keys")
        return self


ADAPTIVE = ("adam", "adan", "adab", "adop", "lion", "lamb", "laprop")
"""What the names of optimisers have in them that move every weight by about their rate, whatever the gradient."""
ADAPTIVE_RATE = 0.1


class ResolutionStage(Settings):
    """Train at `size` pixels up to the part `until` of all steps."""

    size: int = Field(ge=8)
    until: float = Field(gt=0, le=1)


class ScheduleSettings(Settings):
    """How long, in what order, at which rates."""

    name: Literal["linear", "constant", "step", "cosine", "one-cycle", "plateau"] = "linear"
    """How rates go after the warm-up: down in a line or a cosine, down at `milestones`, down where validation no longer
    gains (`plateau`), or not at all; `one-cycle`: up and down in cosines (arXiv 1708.07120)."""
    epochs: int = Field(8, ge=1)
    """Passes over the training rows."""
    batch_size: int = Field(1000, ge=1)
    """Rows a batch; the remainder of an epoch is left for the next shuffle."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients make one step."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Part of all steps in which rates rise linearly; `one-cycle`: in which they rise from 1/25."""
    final: float = Field(0.0, ge=0, le=1)
    """Part of the peak rate that is left at the end; with `step` and `plateau` the least there can be."""
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    """Parts of all steps after which `step` drops the rate."""
    drop: float = Field(0.1, gt=0, lt=1)
    """What `step` and `plateau` multiply the rate with."""
    patience: int = Field(3, ge=1)
    """Looks at validation without a better `train.monitor` after which `plateau` drops the rate."""
    stem_bias_until: float = Field(0.375, ge=0, le=1)
    """Part of all steps in which the whitening stem's bias is trained."""
    resolution: tuple[ResolutionStage, ...] = ()
    """Smaller images early on, cheapest first; after the last stage images have their full size."""

    @model_validator(mode="after")
    def _stages_rise(self) -> ScheduleSettings:
        untils = [stage.until for stage in self.resolution]
        if untils != sorted(set(untils)):
            raise ValueError("resolution stages must have rising 'until' values")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.name == "one-cycle" and not self.warmup:
            raise ValueError("one-cycle rises first, so warmup must be above 0, such as 0.3")
        return self


TUNED = "-tuned"
"""How the names of recipes end that were found by tuning."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Monitor = Literal[
    "val_accuracy", "val_loss", "val_macro_f1", "val_macro_precision", "val_macro_recall", "val_top5_accuracy"
]
"""What is measured on validation after an epoch; of the loss less is better, of all else more."""
MONITORS: tuple[str, ...] = get_args(Monitor)


class DistillSettings(Settings):
    """Learning from a trained model as well as from labels (Hinton et al., arXiv 1503.02531)."""

    run: str = ""
    """Run directory of the teacher, trained to tell the same classes apart; empty: none."""
    temperature: float = Field(4.0, gt=0)
    """What both models' logits are divided by before they are compared."""
    weight: float = Field(0.5, gt=0, le=1)
    """Part of the loss that compares with the teacher; the rest compares with the labels."""


class TrainSettings(Settings):
    """How the loop runs. Every `auto` is resolved and logged with its reason."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Part of the target spread over all classes."""
    focal: float = Field(0.0, ge=0)
    """Exponent γ of the focal loss, which looks less at pictures that are right already; 0: cross-entropy (arXiv
    1708.02002)."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    """How much a picture of each class counts in the loss: the same, as much as its class is rare (on average 1), or by
    class name, where unnamed classes count 1."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Which rows an epoch has: each once, or as many drawn with every class as likely."""
    clip: float = Field(0.0, ge=0)
    """Longest gradient of the mean loss, as the norm over all weights; longer ones are scaled down; 0: any."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay a step of a running average of the weights, which is validated and becomes the model; smaller in the first
    steps; 0: no average."""
    distill: DistillSettings = DistillSettings()
    precision: Precision = "auto"
    """Number format of the forward and backward pass; `auto` times a step of each on a CPU with bfloat16."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Layout of images and filters in memory."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile builds kernels for this network first."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU threads for the arithmetic."""
    validate_every: int = Field(1, ge=1)
    """Epochs from one look at validation to the next; the last epoch always has one."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last epoch, or of the best by `monitor`."""
    monitor: Monitor = "val_accuracy"
    """What early stopping, `keep = "best"` and the schedule `plateau` watch."""
    patience: int = Field(0, ge=0)
    """Looks at validation without a better `monitor` after which training stops; 0: never."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run directory."""


class TransferSettings(Settings):
    """Starting from weights that were trained on something else; nothing here counts without `pretrained`."""

    pretrained: str = ""
    """What `--pretrained` names: `imagenet` (weights that come as a package for this network, else timm's), `timm` or
    the tag of timm's weights (from the hub, kept on this machine), a .safetensors file, or a run directory; empty:
    none."""
    network: Literal["recipe", "run"] = "recipe"
    """`run`: where `pretrained` names a run, `[model]`, `[optimizer]` and `data.image_size` are that run's, and what is
    set on the command line comes on top."""
    head_until: float = Field(0.3, ge=0, le=1)
    """Part of the epochs in which only the head is trained, on a frozen base; 1: all of them."""
    views: int = Field(4, ge=0)
    """Augmented views of each picture whose features are computed once while the base is frozen; 0: anew in each epoch.
    Where nothing is augmented there is one."""
    unfreeze: str = "all"
    """What is trained after that: `all` of the base, or a layer, such as `layer3`, `blocks.8` or `groups.1`, and
    everything behind it."""
    rate: float = Field(0.1, gt=0)
    """What every rate is multiplied with once the base is trained."""
    layer_decay: float = Field(0.8, gt=0, le=1)
    """What rates are multiplied with besides, once more for each layer further from the head (arXiv 1801.06146)."""
    batchnorm: Literal["frozen", "trained"] = "frozen"
    """`frozen`: layers that are trained keep BatchNorm's statistics of the pretrained weights, as frozen layers do."""


class EvaluateSettings(Settings):
    """What is measured after training."""

    tta: bool = True
    """Also score with mirrored and shifted views (its own figure, never the headline)."""
    tta_shift: int = Field(1, ge=0, le=4)
    """Pixels by which the shifted views are moved."""


class When(Settings):
    """Settings that hold only for some data: every condition given must be met."""

    min_classes: int | None = None
    max_classes: int | None = None
    min_rows: int | None = None
    max_rows: int | None = None
    """Rows are training rows, after `limit_train` and without validation."""
    set: dict[str, Any]
    """Dotted keys and their values, as with `--set`."""

    @model_validator(mode="after")
    def _known_before_the_data(self) -> When:
        fixed = [key for key in self.set if key.split(".")[0] in ("name", "seed", "data", "when")]
        if fixed:
            raise ValueError(f"{fixed[0]!r} decides what the data are, so it cannot depend on them")
        return self

    def holds(self, classes: int, rows: int) -> bool:
        """Whether data with this many classes and training rows is meant."""
        return all(
            bound is None or (value >= bound if low else value <= bound)
            for bound, value, low in (
                (self.min_classes, classes, True),
                (self.max_classes, classes, False),
                (self.min_rows, rows, True),
                (self.max_rows, rows, False),
            )
        )


class Recipe(Settings):
    """One way to train, whole."""

    name: str
    """What the recipe is called."""
    description: str = ""
    """One line for `thirtytwo recipes`."""
    seed: int = Field(0, ge=0)
    """Fixes the initial weights, the order and the augmentation."""
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    train: TrainSettings = TrainSettings()
    transfer: TransferSettings = TransferSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    when: tuple[When, ...] = ()
    """Changes for some data; gone from a resolved recipe."""

    @model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        if self.optimizer.sam and self.schedule.accumulate > 1:
            raise ValueError("optimizer.sam takes two passes over one batch, so schedule.accumulate must be 1")
        if self.train.class_weights == "balanced" and self.train.sampler == "balanced":
            raise ValueError("train.class_weights and train.sampler both balance the classes; choose one")
        return self

    def to_toml(self) -> str:
        """The recipe as TOML text that `read_recipe` gives back unchanged."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True, exclude_defaults=False))


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in resources.files("thirtytwo.config.recipes").iterdir()
        if entry.name.endswith(".toml")
    )


def read_recipe_values(name_or_file: str | Path) -> dict[str, Any]:
    """The TOML tables of a shipped recipe or of a file (a run directory means its recipe), unchecked.

    Raises:
        UnknownNameError: neither a shipped recipe nor a file.
        RecipeError: the file is not TOML.
    """
    text, where = _recipe_text(name_or_file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is not valid TOML: {error}.", "Mend that line.") from None


def seed_of(name_or_file: str | Path, changes: Mapping[str, Any]) -> int:
    """The seed of a recipe with these changes; 0 where it has none, or one that is refused when it is resolved."""
    seed = changes.get("seed", read_recipe_values(name_or_file).get("seed", 0))
    return seed if isinstance(seed, int) else 0


def read_recipe(name_or_file: str | Path) -> Recipe:
    """A shipped recipe or a file, checked; see `read_recipe_values` for what it raises besides RecipeError."""
    return parse_settings(Recipe, read_recipe_values(name_or_file), f"Recipe {str(name_or_file)!r}")


def resolve_recipe(
    values: Mapping[str, Any], overrides: Mapping[str, Any], *, classes: int, rows: int, where: str = "Recipe"
) -> Recipe:
    """The recipe as it will run: its `when` rows for this data applied first, then `overrides` (dotted keys).

    Raises:
        RecipeError: the outcome does not fit the schema.
    """
    checked = parse_settings(Recipe, values, where)
    merged = {key: value for key, value in values.items() if key != "when"}
    for number, row in enumerate(checked.when, start=1):
        changed = with_overrides(merged, row.set)
        parse_settings(
            Recipe, changed, f"{where}, 'when' row {number}"
        )  # also where it does not hold: no surprise later
        if row.holds(classes, rows):
            merged = changed
    return parse_settings(Recipe, with_overrides(merged, overrides), where)


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `values` with dotted keys replaced.

    Raises:
        RecipeError: a dotted key runs through something that is not a table.
    """
    merged = _copy(values)
    for dotted, value in overrides.items():
        *tables, key = dotted.split(".")
        table = merged
        for step in tables:
            inner = table.setdefault(step, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{dotted!r} cannot be set: {step!r} holds {inner!r}, not a table.")
            table = inner
        table[key] = value
    return merged


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`["schedule.epochs=4", "augment.flip=none"]` as a table; values are read as TOML, else as text.

    Raises:
        RecipeError: an assignment without `=` or with an empty key.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RecipeError(
                f"--set {assignment!r} is not of the form key=value.", "Write, for example, --set schedule.epochs=4"
            )
        try:
            overrides[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key] = text.strip()
    return overrides


def format_override(key: str, value: Any) -> str:
    """What `parse_overrides` reads as that value under that key: `schedule.epochs=4`."""
    return f"{key}={_inline(value)}"


def _inline(value: Any) -> str:
    """A TOML value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_inline_key(key)} = {_inline(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").removesuffix("\n")


def _inline_key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")


def _recipe_text(name_or_file: str | Path) -> tuple[str, str]:
    name = str(name_or_file)
    path = Path(name)
    if name in recipe_names():  # before files, or a stray `fast` here would hide the recipe of that name
        return resources.files("thirtytwo.config.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"), name
    if path.is_dir() and (path / "recipe.toml").is_file():
        path = path / "recipe.toml"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Recipe {path} could not be read: {error}.") from None
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise UnknownNameError(f"There is no recipe file {name!r}.", "Shipped recipes: " + ", ".join(recipe_names()))
    raise UnknownNameError(f"Unknown recipe {name!r}.", did_you_mean(name, recipe_names()))


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(inner) if isinstance(inner, dict) else inner for key, inner in value.items()}

"""The schema of recipes: one TOML file describes one complete way to train, validated before anything else runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_serializer, model_validator

from thirtytwo.config.settings import Settings

MAX_SEED, MAX_COUNT = 10**18, 10**12
"""Larger seeds overflow in PyTorch; no data set has more images."""


KeepTogether = Literal["auto", "near-duplicates", "copies"]


class DataSettings(Settings):
    """Training data, and how the validation set is held out from it."""

    val_fraction: float = Field(0.1, ge=0.0, le=0.5)
    """Fraction of the training split held out for validation, stratified by class; used only where the data set has no
    validation split."""
    split_seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the split: with the content of each image, it determines the validation images, and the test images where
    the data set has no test split. Separate from `seed`, so that runs with different seeds share the same split."""
    group_by: str = ""
    """Keeps related images, such as all images of one patient, in the same split: a regular expression on file paths,
    whose first capture group (else the whole match) is the group, or the name of a table column; empty: no groups."""
    keep_together: KeepTogether = "auto"
    """Which images stay on one side where validation and test are cut from the training images, besides the groups of
    `group_by`: `copies`, exact ones; `near-duplicates`, also resized, recompressed, shifted, brightened or mirrored
    ones; `auto`: near-duplicates for up to 20,000 photographs without `group_by`, copies for other data, for data that
    brings its own splits, and for known data sets, whose splits stay the same."""
    folds: int = Field(0, ge=0, le=100)
    """Number of folds of a cross-validation; 0: none. `--folds` sets it, with `fold` for each run."""
    fold: int = Field(0, ge=0, le=100)
    """Fold of the training images that this run is tested on, from 1 to `folds`; the other folds are trained on."""
    train_on: Literal["train", "all"] = "train"
    """`all` trains on the validation images as well, once all hyperparameters are fixed; needs `calibrate_from`."""
    calibrate_from: str = ""
    """Calibration run for `train_on = "all"`: directory of a run of the same recipe that held out validation, from
    which the temperature and the OOD threshold are taken."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | Literal["auto"] = "auto"
    """Side of the square input images, in pixels; `auto`: the size of the data set's images, at most 32."""
    decode_size: Annotated[int, Field(ge=8, le=2048)] | Literal["auto"] = "auto"
    """Side of the larger copies of the training images that `augment.crop` crops from, in pixels; `auto`: 1.2 times the
    image size. Without `augment.crop` there are no such copies."""
    resize: Literal["crop", "pad", "squash"] = "crop"
    """How other shapes become square: `crop` takes the central square, `pad` adds black borders, `squash` changes the
    aspect ratio."""
    limit_train: int = Field(0, ge=0, le=MAX_COUNT)
    """Number of training images to use (a stratified sample, without the validation images); 0: all."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and note them in the run and its report, instead of stopping."""
    fix_plan: str = ""
    """Plan of fixes: CSV file of images to drop, relabel or move before the data is divided, as written by `data doctor
    --fix-plan`; the run keeps a copy. Empty: none."""

    @model_validator(mode="after")
    def _check_folds(self) -> DataSettings:
        if self.folds == 1 or (self.folds and not self.fold) or self.fold > self.folds:
            raise ValueError(
                f"fold {self.fold} of {self.folds} folds does not exist; expected 2 folds or more, and a fold from 1 "
                "to their number (--folds trains all of them)"
            )
        if self.folds and self.train_on == "all":
            raise ValueError("folds cannot be combined with train_on = 'all'")
        return self


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


class ModelSettings(Settings):
    """The network architecture and its options."""

    name: str
    """Name of the architecture, as listed by `thirtytwo models`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the architecture; validated by the network itself."""

    @property
    def architecture(self) -> str:
        """The name, with the value of the option `architecture` where it has one, such as `timm resnet18`."""
        named = self.options.get("architecture")
        return f"{self.name} {named}" if isinstance(named, str) else self.name


class OptimizerSettings(Settings):
    """The optimizer.

    With `muon` and `sgd` the loss is summed over the batch: SGD's learning rates and weight decay are per image, so
    they stay valid when the batch size changes; Muon's learning rate is per step and independent of the gradient's
    scale. With timm's optimizers the loss is the mean over the batch, and learning rate and weight decay are as in the
    papers.
    """

    name: str = "muon"
    """`muon`: orthogonalized momentum for convolution filters, SGD for all other weights; `sgd`: SGD for all weights;
    otherwise the name of a timm optimizer (`adamw`, `lion`, `lamb`, …; `timm_muon` and `timm_sgd` select timm's own
    Muon and SGD)."""
    lr: float = Field(0.24, gt=0, le=1000)
    """Peak learning rate of the convolution filters, per step with `muon` and per image with `sgd`; with timm's
    optimizers, of all weights, per step."""
    momentum: float = Field(0.6, ge=0, lt=1)
    """Momentum of the convolution filters; `muon` and `sgd` only."""
    lr_rest: float = Field(0.053, gt=0, le=1000)
    """Peak learning rate of biases and normalization parameters, per image; `muon` and `sgd` only."""
    lr_head: float = Field(0.67, gt=0, le=1000)
    """Peak learning rate of the last linear layer, per image; `muon` and `sgd` only."""
    momentum_rest: float = Field(0.85, ge=0, lt=1)
    """Nesterov momentum of biases, normalization parameters and the last linear layer; `muon` and `sgd` only."""
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Weight decay. With `muon` and `sgd`: the fraction subtracted per image, at the peak learning rate, from each
    weight that SGD updates. With timm's optimizers: their own weight decay, of filters and linear layers without
    biases."""
    decay_all: bool = False
    """Apply weight decay to biases and normalization parameters as well; timm's optimizers only."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the optimizer, such as `betas`, `eps` or `momentum`; timm's optimizers only."""
    renormalise: bool = True
    """Rescale each layer's filters to the norm √(output channels) in every step; `muon` only."""
    sam: float = Field(0.0, ge=0, le=100)
    """Radius ρ of sharpness-aware minimization (SAM), which needs two passes per step; 0: off (arXiv 2010.01412)."""

    @property
    def per_image(self) -> bool:
        """Whether the loss is summed over the batch."""
        return self.name in ("muon", "sgd")

    @model_validator(mode="after")
    def _check_learning_rate(self) -> OptimizerSettings:
        if not self.per_image and self.lr > ADAPTIVE_RATE and any(part in self.name for part in ADAPTIVE):
            raise ValueError(
                f"lr {self.lr:g} is too high for {self.name}, whose step size is about lr for every weight; "
                "try lr = 0.001"
            )
        if self.per_image and self.options:
            raise ValueError(f"options apply only to timm's optimizers; {self.name} has keys of its own")
        return self


ADAPTIVE = ("adam", "adan", "adab", "adop", "lion", "lamb", "laprop")
"""Substrings in the names of optimizers whose step size is about the learning rate, independent of the gradient."""
ADAPTIVE_RATE = 0.1


class ResolutionStage(Settings):
    """Train at `size` pixels up to the fraction `until` of all steps."""

    size: int = Field(ge=8, le=1024)
    until: float = Field(gt=0, le=1)


class FreezeStage(Settings):
    """Train the first `layers` layers up to the fraction `until` of all steps; they are frozen from then on."""

    layers: int = Field(ge=1, le=10_000)
    until: float = Field(gt=0, lt=1)


class ScheduleSettings(Settings):
    """Number of epochs, batch size, and the learning rate over time."""

    name: Literal["linear", "constant", "step", "cosine", "one-cycle", "plateau"] = "linear"
    """Learning-rate schedule after the warm-up: `linear` and `cosine` decay, `step` drops at `milestones`, `plateau`
    drops when validation stops improving, `constant`; `one-cycle`: rises and falls along cosines (arXiv 1708.07120)."""
    epochs: int = Field(8, ge=1, le=1_000_000)
    """Number of passes over the training images."""
    batch_size: int = Field(1000, ge=1, le=1_000_000)
    """Images per batch; the incomplete last batch of an epoch is dropped."""
    accumulate: int = Field(1, ge=1, le=100_000)
    """Number of batches whose gradients are accumulated into one optimizer step."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Fraction of all steps over which the learning rates rise linearly from 0; with `one-cycle`, along a cosine from
    1/25 of the peak."""
    final: float = Field(0.0, ge=0, le=1)
    """Final learning rate, as a fraction of the peak; with `step` and `plateau` a lower bound."""
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    """Fractions of all steps after which `step` drops the learning rate."""
    drop: float = Field(0.1, gt=0, lt=1)
    """Factor by which `step` and `plateau` multiply the learning rate at each drop."""
    patience: int = Field(3, ge=1, le=1_000_000)
    """Number of validations without improvement of `train.monitor` after which `plateau` drops the learning rate."""
    stem_bias_until: float = Field(0.375, ge=0, le=1)
    """Fraction of all steps during which the bias of the whitening stem is trained."""
    resolution: tuple[ResolutionStage, ...] = ()
    """Progressive resizing: train on smaller images first; after the last stage, images have their full size."""
    freeze: tuple[FreezeStage, ...] = ()
    """Progressive freezing: the first layers, counted from the input with the stem, are trained for fewer steps than
    the others, which shortens the backward pass: `[{layers = 2, until = 0.7}, {layers = 3, until = 0.9}]`. A layer is a
    part of the network, or one member of a list of parts, such as a block. Their learning rate follows the whole
    schedule within their own steps (arXiv 1706.04983). BatchNorm of frozen layers still uses the statistics of each
    batch. Both values increase from stage to stage; not for training from pretrained weights."""

    @model_validator(mode="after")
    def _check_stage_order(self) -> ScheduleSettings:
        ordered: dict[str, list[float]] = {
            "resolution stages must have increasing 'until' values": [stage.until for stage in self.resolution],
            "freeze stages must have increasing 'layers' values": [stage.layers for stage in self.freeze],
            "freeze stages must have increasing 'until' values": [stage.until for stage in self.freeze],
            "milestones must be in increasing order": list(self.milestones),
        }
        for rule, values in ordered.items():
            if values != sorted(set(values)):
                raise ValueError(f"{rule}, found {', '.join(map(str, values))}")
        if self.name == "one-cycle" and not self.warmup:
            raise ValueError("one-cycle starts with a warm-up, so warmup must be above 0, such as 0.3")
        return self


TUNED = "-tuned"
"""Suffix of the names of recipes found by tuning."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Monitor = Literal[
    "val_accuracy", "val_loss", "val_macro_f1", "val_macro_precision", "val_macro_recall", "val_top5_accuracy"
]
"""Metrics computed on validation after an epoch; lower is better for the loss, higher for all others."""
MONITORS: tuple[str, ...] = get_args(Monitor)


class DistillSettings(Settings):
    """Knowledge distillation: training on a teacher's outputs as well as on labels (Hinton et al., arXiv
    1503.02531).
    """

    run: str = ""
    """Run directory of the teacher, which must have the same classes; empty: no distillation."""
    temperature: float = Field(4.0, ge=0.01, le=1000)
    """Temperature by which the logits of teacher and student are divided before they are compared."""
    weight: float = Field(0.5, gt=0, le=1)
    """Weight of the distillation term in the loss; the rest is the loss on labels."""


class SelectionSettings(Settings):
    """Training on the images with the highest loss; the number of batches in an epoch stays the same."""

    share: float = Field(1.0, gt=0, le=1)
    """Fraction of the training images that an epoch is drawn from: those whose loss was highest when they were last
    trained on; 1: all. The smaller it is, the more often each of them is repeated."""
    random: float = Field(0.15, ge=0, le=1)
    """Fraction of these that is drawn at random from the other images instead."""
    start: int = Field(1, ge=1, le=1_000_000)
    """Number of epochs, from the first, that use all images."""


Tracker = Literal["tensorboard", "mlflow", "wandb"]


class TrainSettings(Settings):
    """Loss, sampling and the training loop. Every `auto` is resolved and logged with its reason."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Fraction of the target probability spread uniformly over all classes."""
    focal: float = Field(0.0, ge=0, le=100)
    """Exponent γ of the focal loss, which gives less weight to images that are already classified well; 0:
    cross-entropy (arXiv 1708.02002)."""
    class_weights: Literal["auto", "none", "balanced"] | dict[str, Annotated[float, Field(gt=0, le=1e6)]] = "none"
    """Weight of each class in the loss: `none` weighs all images equally, `balanced` inversely to the class's frequency
    (mean weight 1); `auto` is `balanced` where the largest class has at least ten times as many training images as
    the smallest and `sampler` does not balance them, else `none`; a table gives weights by class name, 1 for classes it
    does not name."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Images of an epoch: `shuffle` uses each once; `balanced` samples as many, with replacement and every class
    equally likely."""
    selection: SelectionSettings = SelectionSettings()
    """Training on the images with the highest loss."""
    clip: float = Field(0.0, ge=0, le=1e9)
    """Maximum norm of the gradient of the mean loss over all weights; larger gradients are scaled down; 0: no
    clipping."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay per step of the exponential moving average (EMA) of the weights, which is validated and becomes the model;
    smaller in the first steps; 0: off."""
    distill: DistillSettings = DistillSettings()
    precision: Precision = "auto"
    """Number format of the forward and backward pass; `auto` times a step in each format on a CPU that supports
    bfloat16."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Memory layout of images and filters."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile the network with torch.compile."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Number of CPU threads for computation."""
    validate_every: int = Field(1, ge=1, le=1_000_000)
    """Epochs between validations; the last epoch is always validated."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last epoch, or those of the epoch with the best `monitor`."""
    monitor: Monitor = "val_accuracy"
    """Validation metric used by early stopping, `keep = "best"` and the `plateau` schedule."""
    patience: int = Field(0, ge=0, le=1_000_000)
    """Early stopping: number of validations without improvement of `monitor` after which training stops; 0: off."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run directory; the same as `log = ["tensorboard"]`."""
    log: tuple[Tracker, ...] = ()
    """Experiment trackers that the history and the metrics are logged to, as with `--log`: `tensorboard`, `mlflow` and
    `wandb`."""

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """Every tracker once."""
        return tuple(dict.fromkeys([*self.log, *(("tensorboard",) if self.tensorboard else ())]))


class TransferSettings(Settings):
    """Transfer learning from pretrained weights; without `pretrained` this table has no effect."""

    pretrained: str = ""
    """Pretrained weights, as with `--pretrained`: `imagenet` (packaged weights where this network has them, else
    timm's), `timm` or a tag of timm's weights (downloaded from the hub and cached), a .safetensors file, or a run
    directory; empty: none."""
    network: Literal["recipe", "run"] = "recipe"
    """`run`: where `pretrained` is a run directory, `[model]`, `[optimizer]` and `data.image_size` are taken from that
    run; settings from the command line override them."""
    head_until: float = Field(0.3, ge=0, le=1)
    """Fraction of the epochs in which only the head is trained, on a frozen base; 1: all of them."""
    views: int = Field(4, ge=0, le=1000)
    """Number of augmented views per image whose features are cached while the base is frozen; 0: features are
    recomputed in each epoch. Without augmentation there is one view."""
    unfreeze: Annotated[float, Field(gt=0, le=1)] | str = "all"
    """Part of the base that is trained afterwards: `all`; the name of a layer, such as `layer3`, `blocks.8` or
    `groups.1`, from which all layers to the head are trained; or the fraction of the layers, counted from the head."""
    rate: float = Field(0.1, gt=0, le=1000)
    """Factor by which all learning rates are multiplied once the base is trained."""
    layer_decay: float = Field(0.8, gt=0, le=1)
    """Layer-wise learning-rate decay: an additional factor, applied once per layer of distance from the head (arXiv
    1801.06146)."""
    batchnorm: Literal["frozen", "trained"] = "frozen"
    """`frozen`: BatchNorm keeps the running statistics of the pretrained weights, in trained layers as well."""


class EvaluateSettings(Settings):
    """Evaluation after training."""

    tta: bool = True
    """Also evaluate with test-time augmentation (flipped and translated views), reported as a separate metric."""
    tta_shift: int = Field(1, ge=0, le=4)
    """Translation of the test-time augmentation's views, in pixels."""


class When(Settings):
    """Conditional settings: applied where the data meets every condition given."""

    min_classes: int | None = None
    max_classes: int | None = None
    min_rows: int | None = None
    max_rows: int | None = None
    """Bounds on the number of training images, after `limit_train` and without validation."""
    set: dict[str, Any]
    """Dotted keys and their values, as in `--set`."""

    @model_validator(mode="after")
    def _check_conditions(self) -> When:
        fixed = [key for key in self.set if key.split(".")[0] in ("name", "seed", "data", "when")]
        if fixed:
            raise ValueError(f"{fixed[0]!r} cannot depend on the data, since it is needed before the data is loaded")
        return self

    def holds(self, classes: int, rows: int) -> bool:
        """Whether data with this many classes and training images meets the conditions."""
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
    """A complete recipe."""

    name: str
    """Name of the recipe."""
    description: str = ""
    """One-line description, listed by `thirtytwo recipes`."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Random seed of the initial weights, the order of the images and the augmentation."""
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    train: TrainSettings = TrainSettings()
    transfer: TransferSettings = TransferSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    when: tuple[When, ...] = ()
    """Conditional settings; a resolved recipe has none."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Recipe:
        if self.optimizer.sam and self.schedule.accumulate > 1:
            raise ValueError("optimizer.sam needs two passes over the same batch, so schedule.accumulate must be 1")
        if self.schedule.freeze and self.transfer.pretrained:
            raise ValueError(
                "schedule.freeze is for training from scratch; with pretrained weights, transfer.head_until and "
                "transfer.unfreeze say which layers are trained"
            )
        if self.train.class_weights == "balanced" and self.train.sampler == "balanced":
            raise ValueError("train.class_weights and train.sampler cannot both be 'balanced'; choose one")
        if self.train.selection.share < 1 and self.train.sampler == "balanced":
            raise ValueError("train.selection and train.sampler = 'balanced' both choose the images; use one of them")
        return self

    @property
    def head_epochs(self) -> int:
        """Number of epochs, from the first, in which only the head is trained, if weights are transferred."""
        return round(self.transfer.head_until * self.schedule.epochs)

    def to_toml(self) -> str:
        """The recipe as TOML text; `config.resolve.read_recipe` reads it back unchanged."""
        import tomlkit  # only where a recipe is written: reading one must not take longer

        return tomlkit.dumps(self.model_dump(mode="json", exclude_none=True, exclude_defaults=False))

"""The schema of recipes: one TOML file describes one complete way to train, validated before anything else runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from thirtytwo.config.augmentation import AugmentSettings
from thirtytwo.config.optimization import OptimizerSettings, ScheduleSettings
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


TEACHER_WORK = 1 / 3
"""Work of a forward pass, as a share of a training step, which also has a backward pass of twice the operations."""


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
    cuda_graphs: Literal["auto", "off"] = "auto"
    """Whether training steps run as CUDA graphs: `auto` on an NVIDIA GPU in one process, for FastNet with the optimizer
    `muon` or `sgd`, unless `compile`, `optimizer.sam`, `schedule.accumulate` or `transfer.pretrained` is set."""
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
        """Number of epochs, from the first, in which only the head is trained; 0 without pretrained weights."""
        return round(self.transfer.head_until * self.schedule.epochs) if self.transfer.pretrained else 0

    def work_done(self, epochs: float) -> float:
        """Share of a training's work after so many epochs, 0 to 1, by the pixels of its images.

        A teacher, which sees them at full size, counts as if it were the student's network. Epochs of transfer learning
        in which only the head is trained do not count, unless all are.
        """
        head = self.head_epochs
        if head >= self.schedule.epochs:
            return epochs / self.schedule.epochs
        progress = max(0.0, (epochs - head) / (self.schedule.epochs - head))
        full = self.data.image_size
        teacher = TEACHER_WORK if self.train.distill.run else 0.0
        return progress if isinstance(full, str) else self.schedule.work_at(progress, full, teacher)

    def to_toml(self) -> str:
        """The recipe as TOML text; `config.resolve.read_recipe` reads it back unchanged."""
        import tomlkit  # only where a recipe is written: reading one must not take longer

        return tomlkit.dumps(self.model_dump(mode="json", exclude_none=True, exclude_defaults=False))

"""CIFAR-10 and CIFAR-100: class names and source of the data.

Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009. Indices are those of the original files.
"""

from __future__ import annotations

from thirtytwo.data.sources.hub import read_known
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.types import DATASETS, DataSet, Request

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR100_GROUPS = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""Classes by superclass; the indices of both follow alphabetical order."""

CIFAR100_SUPERCLASSES = {name: group for group, names in CIFAR100_GROUPS.items() for name in names}

CIFAR10 = KnownDataSet(
    name="cifar10",
    hub_id="uoft-cs/cifar10",
    classes={"label": CIFAR10_CLASSES},
    superclasses={},
)

CIFAR100 = KnownDataSet(
    name="cifar100",
    hub_id="uoft-cs/cifar100",
    classes={"fine_label": tuple(sorted(CIFAR100_SUPERCLASSES)), "coarse_label": tuple(sorted(CIFAR100_GROUPS))},
    superclasses={"fine_label": CIFAR100_SUPERCLASSES},
)

KNOWN = {known.hub_id: known for known in (CIFAR10, CIFAR100)}


@DATASETS.register(CIFAR10.name)
def cifar10(request: Request) -> DataSet:
    """60,000 color images of 32×32 pixels in 10 classes."""
    return read_known(CIFAR10, request)


@DATASETS.register(CIFAR100.name)
def cifar100(request: Request) -> DataSet:
    """60,000 color images of 32×32 pixels in 100 classes of 20 superclasses."""
    return read_known(CIFAR100, request)

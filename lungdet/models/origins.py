"""Origins: what weights that others publish have learnt from, and which pixel values they expect.

Datasets are called as `conf/data` calls them, where it has them. Sources:
- torchxrayvision's own table of its weights, and https://huggingface.co/torchxrayvision, name the datasets of each.
- https://github.com/mlmed/torchxrayvision/issues/47 and /139: they were trained on random parts (some 80 %) of these
  datasets, not on the publishers' lists, and who was in them is lost: "consider it to be all samples".
- The images of the RSNA pneumonia challenge (doi 10.2214/AJR.19.21512) and those with Google's labels are
  ChestX-ray14's.
"""

import re
from dataclasses import dataclass

from lungdet.errors import InputError

GREY = (-1024.0, 1024.0)
"""The range that torchxrayvision brings pixels to (`torchxrayvision.utils.normalize`)."""


@dataclass(frozen=True)
class Origin:
    """What is known of published weights.

    Attributes:
        seen: the datasets of radiographs that they learnt from, each to be taken as a whole.
        range: what black and white became as they were trained; None: as timm says of the model.
    """

    seen: tuple[str, ...] = ()
    range: tuple[float, float] | None = None


ORIGINS: dict[str, Origin] = {
    "imagenet": Origin(),
    "densenet121-res224-all": Origin(("chestxray14", "padchest", "chexpert", "mimic_cxr", "openi"), GREY),
    "densenet121-res224-nih": Origin(("chestxray14",), GREY),
    "densenet121-res224-rsna": Origin(("chestxray14",), GREY),
    "densenet121-res224-pc": Origin(("padchest",), GREY),
    "densenet121-res224-chex": Origin(("chexpert",), GREY),
    "densenet121-res224-mimic_nb": Origin(("mimic_cxr",), GREY),
    "densenet121-res224-mimic_ch": Origin(("mimic_cxr",), GREY),
}
"""By the name that `model.backbone.origin` says; torchxrayvision's are its own."""


def named(origin: str) -> Origin:
    """The origin of this name.

    Raises:
        InputError: there is none.
    """
    if origin not in ORIGINS:
        raise InputError(
            f"model.backbone.origin={origin}: known are {', '.join(ORIGINS)}; for others leave it out and say what "
            "they have learnt from, 'model.backbone.seen=[DATASET]'"
        )
    return ORIGINS[origin]


def imagenet(tag: str) -> bool:
    """Whether timm's tag of weights names ImageNet alone: `a1_in1k`, `augreg_in21k_ft_in1k`; not `openai_ft_in1k`."""
    steps = tag.split("_ft_")
    alone = all(re.search(r"(^|_)in(1|12|21|22)k(_\d+)?$", step) for step in steps)
    return alone and not re.search(r"clip|jft|laion|swag|_6m_", tag)

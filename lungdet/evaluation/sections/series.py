"""Series: the study's claim that the CNN-LSTM profits most from series of images, and what these runs read."""

from lungdet.evaluation.page.document import Text
from lungdet.evaluation.page.wording import number


def section(summary: dict) -> list:
    """That the claim is not measured, and whether there are series to measure it on."""
    test = summary["data"]["test"]
    further = test["images"] - test["patients"]
    are = "is a further image" if further == 1 else "are further images"
    there = (
        f"There are series to read: of the {test['images']:,} images tested {further:,} {are} of a patient."
        if further
        else f"Here there is none to read: each of the {number(test['patients'], 'patient')} tested has a single image."
    )
    return [
        Text(
            "The study says that the CNN-LSTM profits most from a patient's series of images. That is not measured by "
            f"these runs: each of them reads a single image. {there}"
        )
    ]

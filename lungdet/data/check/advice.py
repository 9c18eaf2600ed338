"""What follows from a dataset's numbers, by rules that are stated with their numbers."""

import math

MANY = 30
"""Patients of a kind below which a number about them says little."""

WIDE = 0.05
"""Half the width of the accuracy's interval from which folds are advised."""

EXPECTED = 0.9
"""The accuracy and the AUROC at which widths are worked out."""


def advise(numbers: dict, protocol: str) -> list[str]:
    """Sentences, each with the rule it follows from.

    Args:
        numbers: from `fingerprint.describe`.
        protocol: the split's, `data.split`.
    """
    rules = [_classes, _intervals, _folds, _findings, _sources]
    if protocol == "folds":
        rules.remove(_folds)
    return [sentence for rule in rules if (sentence := rule(numbers))]


def class_weights(normal: int, abnormal: int) -> tuple[float, float]:
    """Weights of normal and abnormal under which both classes count alike: n / (2 n_class)."""
    total = normal + abnormal
    return total / (2 * normal), total / (2 * abnormal)


def accuracy_half_width(patients: int) -> float:
    """Half the 95 % interval to expect: 1.96 sqrt(a (1 - a) / n), each patient counting once."""
    return 1.96 * math.sqrt(EXPECTED * (1 - EXPECTED) / patients)


def auroc_half_width(normal: int, abnormal: int) -> float:
    """Half the 95 % interval to expect, by Hanley and McNeil (Radiology 143:29-36, 1982)."""
    q1, q2 = EXPECTED / (2 - EXPECTED), 2 * EXPECTED**2 / (1 + EXPECTED)
    variance = EXPECTED * (1 - EXPECTED) + (abnormal - 1) * (q1 - EXPECTED**2) + (normal - 1) * (q2 - EXPECTED**2)
    return 1.96 * math.sqrt(variance / (normal * abnormal))


def _classes(numbers: dict) -> str:
    part = numbers["parts"].get("train", numbers["all"])
    scope = "of the train part" if "train" in numbers["parts"] else "of all images"
    counts = part["abnormal"]
    if not counts["present"] or not counts["absent"]:
        return f"Only one class stands in the images {scope}; there is nothing to learn."
    normal, abnormal = class_weights(counts["absent"], counts["present"])
    share = f"{counts['prevalence']:.1%} {scope} are abnormal"
    if 0.4 <= counts["prevalence"] <= 0.6:
        return f"No class weights are needed: {share}, which is between 40% and 60%."
    return (
        f"Weigh the classes (`model.class_weights=balanced`): {share}, which is outside 40% to 60%. The weights are "
        f"{normal:.3f} for normal and {abnormal:.3f} for abnormal (n / (2 n_class))."
    )


def _intervals(numbers: dict) -> str | None:
    test = numbers["parts"].get("test")
    if test is None or not test["patients"]:
        return None
    if not test["abnormal"]["present"] or not test["abnormal"]["absent"]:
        return "The test part holds one class only, so no AUROC can be told."
    normal, abnormal = test["patients_normal"], test["patients_abnormal"]
    if not normal:  # a patient with both kinds of images counts as abnormal
        return (
            f"Expect a 95% interval of ± {accuracy_half_width(abnormal):.1%} for an accuracy of {EXPECTED:.0%} from "
            f"the test part's {abnormal:,} patients. Each of them has an abnormal image, so that the interval of an "
            "AUROC cannot be foreseen by counting patients."
        )
    return (
        f"Expect 95% intervals of ± {accuracy_half_width(normal + abnormal):.1%} for an accuracy of {EXPECTED:.0%} "
        f"(1.96 √(a(1-a)/n)) and of ± {auroc_half_width(normal, abnormal):.3f} for an AUROC of {EXPECTED:.2f} (Hanley "
        f"and McNeil 1982) from the test part's {normal + abnormal:,} patients, {abnormal:,} of them abnormal. "
        "Patients are counted, not images, since images of one patient resemble each other. Two models that differ by "
        "less can still be told apart on the same images."
    )


def _folds(numbers: dict) -> str | None:
    test, patients = numbers["parts"].get("test"), numbers["all"]["patients"]
    if test is None or not test["patients"]:
        return None
    rarer = min(test["patients_normal"], test["patients_abnormal"])
    if accuracy_half_width(test["patients"]) > WIDE:
        reason = f"the accuracy's interval is wider than ± {WIDE:.0%}"
    elif rarer < MANY:
        reason = f"the rarer class has {rarer} test patients, fewer than {MANY}"
    else:
        return None
    return (
        f"Use folds instead of one split (`-m data.split=folds 'data.fold=range(5)'`): {reason}. All {patients:,} "
        f"patients are then tested once, for an interval of about ± {accuracy_half_width(patients):.1%}."
    )


def _findings(numbers: dict) -> str | None:
    patients = numbers["parts"].get("test", {}).get("patients_by_finding", {})
    rare = ", ".join(f"{finding} ({count})" for finding, count in patients.items() if 0 < count < MANY)
    if not rare:
        return None
    return (
        f"Say little about single findings that fewer than {MANY} test patients have: {rare}. Sensitivities on so few "
        "vary by chance by 10 points and more."
    )


def _sources(numbers: dict) -> str | None:
    prevalences = {name: group["abnormal"]["prevalence"] for name, group in numbers["datasets"].items()}
    known = {name: share for name, share in prevalences.items() if share is not None}
    if len(known) < 2 or max(known.values()) - min(known.values()) <= 0.1:
        return None
    shares = ", ".join(f"{name} {share:.0%}" for name, share in known.items())
    return (
        f"Read each source's results apart and consider `data.sampler=balanced`: the share of abnormal images differs "
        f"by more than 10 points ({shares}), so that telling the source already tells something of the label."
    )

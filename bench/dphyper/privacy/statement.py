"""The privacy paragraph of a cell, in words that a paper can print.

It says what the ledger says and how the hyper-parameters were chosen. It claims nothing that the ledger does not
support. The author vouches that the public data really were public, and free of the private records.
"""

import math

from dphyper.core.labels import SELECTIONS
from dphyper.core.specs import Cell
from dphyper.privacy.budget import Relation
from dphyper.privacy.ledger import Charge, Ledger
from dphyper.privacy.mechanisms import BestOfTrials, GaussianMechanism, NoisyHistogram, OneShotMean

_RELATIONS = {
    Relation.ADD_OR_REMOVE_ONE: "differ by the addition or removal of one record (the number of records is secret)",
    Relation.ZERO_OUT: "differ by one record being replaced with a null record (the number of records is public)",
    Relation.REPLACE_ONE: "differ by the replacement of one record (the number of records is public)",
}
# What a store shows of a private family besides the released parameters. These disclosures come from the benchmark, not
# from the method.
_BESIDES = (
    "The guarantee is that of this one run: other runs on the same records add to it. It does not cover what judges "
    "the run: distances, losses and shifts come from held-out records of the same family{sheet}. {times} A hash of the "
    "family's data stands in the row, under a key that the store keeps."
)
_SHEET = ", and so does the sheet of reference images, which is shown"
_TIMES = {
    False: "Nor does it cover the running times, which are told.",
    True: "The row does not tell how long the run took.",
}
_LAWS = {0.0: "logarithmic", 1.0: "geometric", math.inf: "Poisson"}
_NOISE = {
    "rounded": "What is released is rounded to a grid that the noise covers; the noise is an exact Gaussian from the "
    "operating system's entropy.",
    "continuous": "The noise was drawn in float64 from the operating system's entropy; its digits show in the release, "
    "so that the guarantee is one of exact arithmetic alone.",
    "discrete": "The noise is an exact discrete Gaussian on a grid, drawn from the operating system's entropy.",
}


def privacy_statement(
    cell: Cell, ledger: Ledger, selection: str, public_data: str, *, reference_shown: bool = False
) -> str:
    """State the unit, the relation, ε, δ, mechanisms and noise, what was public, and how options were chosen.

    Args:
        cell: The cell that the ledger belongs to.
        ledger: The ledger of the finished run.
        selection: A key of `labels.SELECTIONS`. Trials on the private records count as charged only if the ledger holds
            a `BestOfTrials`.
        public_data: What the public stages were trained on, as a noun phrase.
        reference_shown: Whether the store shows a sheet of held-out images of the family beside the generated ones.

    Returns:
        One paragraph, which ends with what the guarantee leaves out. It begins with "No privacy guarantee" where there
        is none: ε = ∞, reproducible noise, or hyper-parameters chosen on private records without accounting.
    """
    relation = ledger.budget.relation
    spent = ledger.spent()
    parameters = "the candidates and all other hyper-parameters" if ledger.has_selection else "all hyper-parameters"
    public = f"Taken as public: {public_data}, the model architecture, {parameters}, " + (
        "and the expected batch size." if relation is Relation.ADD_OR_REMOVE_ONE else f"and n = {cell.n}."
    )
    tuning = SELECTIONS[selection]
    besides = _BESIDES.format(sheet=_SHEET * reference_shown, times=_TIMES[ledger.has_selection])
    if not ledger.charges:
        return f"The output depends on no private record (ε = 0). {public} {tuning} {besides}"
    releases = " ".join(_describe(charge, ledger) for charge in ledger.charges)
    why = ""
    if math.isinf(spent):
        why = "private records were used without noise"
    elif not ledger.private:
        why = "the noise can be computed again from a seed"
    elif selection == "non_private" or (selection == "tuned_private" and not ledger.has_selection):
        why = "hyper-parameters were chosen on the private records without accounting"
    if why:
        return f"No privacy guarantee: {why}. {releases} {public} {tuning}"
    accounting = (
        "Rényi divergences, with the theorems on private selection of Papernot and Steinke (2022)"
        if ledger.has_selection
        else "privacy-loss distributions or the exact Gaussian formula"
    )
    return (
        f"The output is (ε = {spent:.3g}, δ = {ledger.budget.delta:g})-differentially private with respect to one "
        f"record: two data sets are neighbours if they {_RELATIONS[relation]}. {releases} "
        f"Accounting: {accounting}, confirmed by a second accountant. "
        f"{_NOISE[(ledger.noise or {})['sampler']]} {public} {tuning} {besides}"
    )


def _describe(charge: Charge, ledger: Ledger) -> str:
    mechanism, relation = charge.mechanism, ledger.budget.relation
    when = f", in failed attempt {charge.attempt}" * bool(charge.attempt)
    what = (
        _release(mechanism, relation) if isinstance(mechanism, GaussianMechanism) else _selection(mechanism, relation)
    )
    return f"Released ({charge.role}{when}): {what}."


def _selection(mechanism: BestOfTrials, relation: Relation) -> str:
    law = _LAWS.get(mechanism.shape, f"truncated negative binomial (shape {mechanism.shape:g})")
    each = "; ".join(_release(part, relation) for part in mechanism.trial)
    return (
        f"the best of K trials and nothing of the others, K being secret and drawn from a {law} law of mean "
        f"{mechanism.mean_trials:g}, the cost of the choice included in ε. Each trial computes {each}"
    )


def _release(mechanism: GaussianMechanism, relation: Relation) -> str:
    match mechanism:
        case OneShotMean():
            joint = " jointly with their number" if mechanism.count_coordinate(relation) else ""
            what = f"the sum of per-record vectors clipped to l2 norm {mechanism.l2_clip_norm:g}, once{joint}"
        case NoisyHistogram():
            what = "a histogram of per-record votes of l2 norm at most 1, once"
        case _:
            sample = (
                f"over Poisson samples of rate {mechanism.sampling_prob:g}"
                if mechanism.sampling_prob < 1
                else "over all records"
            )
            what = (
                f"{mechanism.steps} sums of per-example gradients clipped to l2 norm {mechanism.l2_clip_norm:g}, "
                f"{sample}"
            )
    sigma, std = mechanism.noise_multiplier, mechanism.noise_std(relation)
    noise = (
        f"with Gaussian noise of standard deviation {std:.4g} on each coordinate (noise multiplier {sigma:.4g}; "
        f"l2 sensitivity {mechanism.sensitivity(relation):.4g})"
        if std
        else "without noise"
    )
    return f"{what}, {noise}"

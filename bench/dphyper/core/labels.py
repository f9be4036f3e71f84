"""What may be said of a number: how its options were chosen, whether its code was sound.

One rule, `doubt`, decides which private rows support no claim. The module imports no torch, so that reports can use it,
and computes nothing.
"""

from packaging.version import InvalidVersion, Version

# Private rows count from this version on. Before it the generator of private losses had only 32 bits of secret state, a
# record's row could depend on how many others shared its batch, and releases showed all bits of their noise.
SOUND_SINCE = "0.2.0.dev0"

# How hyper-parameters were chosen, beside a number.
SELECTION_LABELS = {
    "fixed": "fixed",
    "tuned_public": "tuned on public tasks",
    "tuned_private": "tuned privately, charged",
    "non_private": "non-private",
    "unknown": "unknown",
}

# The same as a sentence of the privacy statement.
SELECTIONS = {
    "fixed": "All hyper-parameters were fixed in advance, at no privacy cost.",
    "tuned_public": "Hyper-parameters were chosen on public tasks held out for tuning, at no privacy cost.",
    "tuned_private": "Hyper-parameters were chosen on the private records, each trial drawing its own at random.",
    "non_private": "Hyper-parameters were chosen on the private records, at a cost that is not accounted for.",
    "unknown": "How the hyper-parameters were chosen is not recorded; a choice on private results would not be "
    "accounted for.",
}


def doubt(harness: str, commit: str) -> str:
    """Why a private row made by this code supports no claim; an empty string if it does support one.

    Args:
        harness: Version of dphyper that made the row.
        commit: Git commit that the run started from, with ``-dirty`` behind it where files had been changed.

    >>> doubt("0.1.0", "c0ffee")
    'it was made by dphyper 0.1.0, and private rows count since 0.2.0.dev0: the code before had known faults'
    >>> doubt("0.2.0", "c0ffee"), doubt("0.2.0", "c0ffee-dirty")
    ('', 'it was made from the changed commit c0ffee-dirty: what ran is not known')
    """
    try:
        before = Version(harness) < Version(SOUND_SINCE)
    except InvalidVersion:
        return f"it was made by dphyper '{harness}', which is no version: what ran is not known"
    if before:
        return (
            f"it was made by dphyper {harness}, and private rows count since {SOUND_SINCE}: the code before had known "
            "faults"
        )
    if commit.endswith("-dirty"):
        return f"it was made from the changed commit {commit}: what ran is not known"
    return "" if commit else "it was made from no known commit: what ran is not known"

"""Metrics are read as their classes declare."""

from dphyper.reports.measures import (
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    direction,
    in_units,
    known_metrics,
    metric_label,
    metric_title,
    tabled_metrics,
)


def test_a_metric_of_an_outside_package_is_read_as_it_declares(coverage: str) -> None:
    assert direction(coverage) is HIGHER_IS_BETTER
    assert direction("kernel") is LOWER_IS_BETTER
    assert (metric_label(coverage, "inception"), metric_title(coverage, "inception")) == ("coverage", "Coverage")
    assert in_units(coverage) == ""
    assert known_metrics(["seconds_adapt", "kernel", coverage, "denoising_loss", "frechet"]) == [
        "frechet", "denoising_loss", coverage, "kernel"
    ]  # fmt: skip
    assert tabled_metrics(["kernel", coverage, "frechet", "denoising_loss"]) == ["denoising_loss", "frechet", coverage]
    assert known_metrics(["unheard_of"]) == []

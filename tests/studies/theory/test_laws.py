"""The closed forms, against the analytic hypernetwork's measured risk."""

import math

import pytest
import torch

from dphyper.studies.theory.draws import learn_public, make_world
from dphyper.studies.theory.hypernetworks import adapt_analytic
from dphyper.studies.theory.laws import predict_risks
from dphyper.studies.theory.points import Point
from dphyper.studies.theory.worlds import excess_risk


def test_theory_predicts_the_analytic_form() -> None:
    point = Point(d=50, k=4, n=256, epsilon=1.0)
    world, public = make_world(point, 0, "test"), learn_public(point, 0)
    w_Bd = world.draw_weights(100)
    records = world.draw_records(w_Bd, point.n)
    rng = torch.Generator().manual_seed(0)
    found = adapt_analytic(records[..., :50], records[..., 50], public, point.budget, draws=5, rng=rng)
    risk = float(excess_risk(found["hypernetwork"][:, :-1], w_Bd).mean())
    assert risk == pytest.approx(predict_risks(point)["theory_subspace"], rel=0.2)
    assert risk != pytest.approx(predict_risks(Point(d=50, k=8, n=256, epsilon=1.0))["theory_subspace"], rel=0.2)


def test_without_a_budget_nothing_is_paid_for_privacy() -> None:
    free = predict_risks(Point(epsilon=math.inf, angle=90.0))
    assert free["privacy_subspace"] == free["privacy_ambient"] == free["rate_subspace"] == 0
    assert free["misalignment"] == 1
    assert predict_risks(Point())["privacy_subspace"] > 0 == predict_risks(Point())["misalignment"]

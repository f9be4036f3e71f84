"""The privacy budget: ε, δ and the relation between neighbouring data sets for which they hold.

The unit of privacy is always one record. A budget says what may be spent; the ledger sees to it that no more is spent.
Nothing here knows a mechanism.
"""

from dataclasses import dataclass
from enum import StrEnum

from dphyper.core.errors import UserError


class Relation(StrEnum):
    """When two data sets are neighbours. Only rows of one relation may be compared.

    Attributes:
        ADD_OR_REMOVE_ONE: One data set has one record more than the other. The number of records is secret.
        ZERO_OUT: One record is replaced by the null record, which contributes the zero vector. The number of records
            is public (Kairouz et al. 2021, arXiv:2103.00039, Definition 1.1).
        REPLACE_ONE: One record is replaced by any other. The number of records is public. A record moves a sum by up
            to twice its norm bound, so this relation needs about twice the noise of the others.
    """

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    ZERO_OUT = "zero_out"
    REPLACE_ONE = "replace_one"

    @property
    def sensitivity_factor(self) -> int:
        """Largest move of a sum between neighbours, in norm bounds of one record's contribution.

        >>> Relation.ZERO_OUT.sensitivity_factor, Relation.REPLACE_ONE.sensitivity_factor
        (1, 2)
        """
        return 2 if self is Relation.REPLACE_ONE else 1


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The guarantee (ε, δ) under one relation.

    Attributes:
        epsilon: ε above 0; ``inf`` for no privacy at all.
        delta: δ, above 0 and below 1. `Ledger.bind`, which knows n, checks that it lies below 1/n.
        relation: A `Relation` or its value.

    Raises:
        UserError: A value lies outside its range, or the relation is unknown.

    >>> Budget(epsilon=1.0, delta=1e-5, relation="zero_out").relation is Relation.ZERO_OUT
    True
    """

    epsilon: float
    delta: float
    relation: Relation

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise UserError(f"epsilon = {self.epsilon}: expected a number above 0, or inf for no privacy at all")
        if not 0 < self.delta < 1:
            raise UserError(f"delta = {self.delta}: expected above 0 and below 1, and far below 1/n")
        if self.relation not in set(Relation):
            raise UserError(f"relation = {self.relation!r}: expected one of {', '.join(Relation)}")
        object.__setattr__(self, "relation", Relation(self.relation))

"""How well linear classifiers tell a face's attributes from features of it: section 4.4 and Table 1 of the paper."""

from fastvae.attributes.recognise import AttributeResult, Recognition, recognise
from fastvae.attributes.splits import Splits, choose_splits

__all__ = ["AttributeResult", "Recognition", "Splits", "choose_splits", "recognise"]

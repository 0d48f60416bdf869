"""Training procedures: the methods of other authors that are more than a penalty."""

from keras_gss.procedures.admm import ADMM
from keras_gss.procedures.base import Procedure
from keras_gss.procedures.bayes import BayesL1Trim
from keras_gss.procedures.gradual_pruning import GradualPruning
from keras_gss.procedures.greg import GroupGReg
from keras_gss.procedures.group_pruner import GroupPruner
from keras_gss.procedures.proximal_steps import ProximalSteps
from keras_gss.procedures.soft_pruning import SoftPruning
from keras_gss.procedures.spred import Spred

__all__ = [
    "ADMM",
    "BayesL1Trim",
    "GradualPruning",
    "GroupGReg",
    "GroupPruner",
    "Procedure",
    "ProximalSteps",
    "SoftPruning",
    "Spred",
]

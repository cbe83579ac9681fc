"""From a model and a wish to a workflow, without a configuration: what the verbs optimize, finetune ... stand for."""

from olivine.recipes.evaluation import evaluate
from olivine.recipes.workflows import benchmark, convert, finetune, optimize, quantize

__all__ = ["benchmark", "convert", "evaluate", "finetune", "optimize", "quantize"]

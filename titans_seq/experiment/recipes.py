"""The recipe of every kind of task."""

from typing import Any

from titans_seq.experiment.classification import ClassificationRecipe
from titans_seq.experiment.forecasting import ForecastRecipe
from titans_seq.experiment.pretraining import PretrainingRecipe
from titans_seq.experiment.recipe import Recipe
from titans_seq.schema import ClassificationConfig, Config, ForecastConfig, PretrainingConfig

RECIPES: dict[type[Config], type[Recipe[Any]]] = {
    ForecastConfig: ForecastRecipe,
    ClassificationConfig: ClassificationRecipe,
    PretrainingConfig: PretrainingRecipe,
}


def build_recipe(config: Config) -> Recipe[Any]:
    """The recipe for a configuration."""
    return RECIPES[type(config)](config)

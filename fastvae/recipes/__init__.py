"""The recipes: what `fastvae train NAME` starts from."""

from fastvae.recipes import ablations, paper, systems
from fastvae.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*paper.RECIPES, *systems.RECIPES, *ablations.RECIPES)}

__all__ = ["RECIPES", "Recipe"]

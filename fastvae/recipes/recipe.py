"""A recipe: a config under a name, and what it is for."""

from dataclasses import dataclass, replace

from fastvae.config import Config


@dataclass(frozen=True)
class Recipe:
    """What `fastvae train NAME` starts from.

    Attributes:
        about: one sentence for people.
        config: the whole run, which names the recipe.
    """

    about: str
    config: Config

    def __call__(self) -> Config:
        """The config."""
        return self.config

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.config.recipe

    def derive(self, name: str, about: str, objective=None, **changes) -> "Recipe":
        """A recipe that differs in some fields.

        Args:
            name: a whole name, or an ending that begins with "-".
            about: one sentence for people.
            objective: its options; None for those of this recipe.
            changes: fields of `Config`.
        """
        name = self.name + name if name.startswith("-") else name
        objective = self.config.objective if objective is None else objective
        return Recipe(about, replace(self.config, recipe=name, objective=objective, **changes))

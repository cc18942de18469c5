"""What all sections of a configuration are: typed, frozen and strict."""

from pydantic import BaseModel, ConfigDict

SIDE_MULTIPLE = 16
"""Four 2x2 poolings: the sides of whatever the network sees are multiples of it."""


class Section(BaseModel):
    """Values that cannot be changed, and no key but the ones below."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

"""What the sections of a config share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MANY = 1_000_000  # more epochs, steps or images than anyone means; above it, sums of them would overflow
WIDE = 65_536  # channels, or pixels of a side

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Section(BaseModel):
    """What all sections share: strict types, no unknown keys, no change after validation."""

    model_config = ConfigDict(**STRICT, frozen=True, extra="forbid")

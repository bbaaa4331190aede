"""The fields of every table of clips: its format, columns, labels and splits."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Natural, Number, Share

Name = Annotated[str, Field(min_length=1)]
# A section with kinds passes through Python, where a strict tuple refuses the list that YAML has.
LISTED = BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
Names = Annotated[tuple[Name, ...], LISTED]


def _pairs(given: Any) -> Any:
    """Parse `a=1,b=2`, as the command line has it."""
    if not isinstance(given, str):
        return given
    return dict(part.rpartition("=")[::2] for part in given.replace(" ", "").split(","))


# Descriptions in annotations are inherited; docstrings below fields are not.
@dataclass(frozen=True, config=SETTINGS, kw_only=True)
class TableFields:
    """How the rows of a table become clips."""

    delimiter: Annotated[
        str | None, Field(description="Sign between the cells of a CSV file, or `tab`; null recognises it.")
    ] = None
    encoding: Annotated[
        str | None, Field(description="Encoding of a CSV or JSON file, such as `cp1252`; null recognises it.")
    ] = None
    split_column: Annotated[Name, Field(description="Column of the split.")] = "split"
    text_column: Annotated[Name, Field(description="Column of the text.")] = "text"
    fallback_text_column: Annotated[Name | None, Field(description="Column to read if the text is blank.")] = None
    label_column: Annotated[Name, Field(description="Column of the label.")] = "label"
    video_column: Annotated[
        Name, Field(description="Column of the video; if it is missing, the id without its last number.")
    ] = "video_id"
    label_map: Annotated[
        dict[str, Number | str],
        BeforeValidator(_pairs),
        Field(description="What words in the label column stand for, such as `{positive: 1, negative: -1}`."),
    ] = Field(default_factory=dict)
    classes: Annotated[
        Names,
        Field(description="Names of the classes in order, if labels are classes; cells are names, or numbers from 0."),
    ] = ()
    split_map: Annotated[
        dict[str, str],
        BeforeValidator(_pairs),
        Field(description="What words in the split column stand for, such as `{holdout: test}`."),
    ] = Field(default_factory=dict)
    split: Annotated[
        str | None,
        Field(
            description="Percentages of train, valid and test, such as `80/10/10`, by which whole videos are dealt "
            "out, stratified by label; null reads the split column."
        ),
    ] = None
    valid_fraction: Annotated[
        Share | None, Field(description="Share of train to move to valid, by whole videos, if there is no valid split.")
    ] = None
    seed: Annotated[Natural, Field(description="Seed for `split` and `valid_fraction`.")] = 1

"""Part of a run config: what a study's `base` holds, every value checked by the rule of its own field."""

from functools import cache
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, create_model

from moelab.config import Config
from moelab.runs import RunConfig


def check_base(base: dict[str, Any], where: str = "base") -> None:
    """Check the values there are; what is missing may still come from a stage, a sweep or an entry.

    What holds between fields (a batch of whole sequences) is checked when the run is built. Raises InputError naming
    the field and what it allows.
    """
    _partial(RunConfig).parse(base, where)


@cache
def _partial(whole: type[BaseModel]) -> type[Config]:
    """The same fields, none of them required, without the rules between them; configs inside likewise."""
    fields: dict[str, Any] = {}
    for name, info in whole.model_fields.items():
        kind = _annotation(info.annotation)
        for rule in info.metadata:
            kind = Annotated[kind, rule]
        fields[name] = (kind | None, None)
    return create_model(whole.__name__, __base__=Config, **fields)


def _annotation(annotation: Any) -> Any:
    """A configuration class, alone or with None, made partial; anything else as it is."""
    choices = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    inner = next((each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return annotation if inner is None else _partial(inner)

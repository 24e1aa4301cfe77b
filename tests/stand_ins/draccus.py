"""Stand-in for the package draccus, with the part of its interface through which LeRobot makes a configuration."""

from dataclasses import MISSING, fields


class DecodingError(Exception):
    """What draccus raises where a configuration cannot be made of the given values."""


class ChoiceRegistry:
    """Classes by name; each subclass of a registry registers under one or more."""

    def __init_subclass__(cls):
        if ChoiceRegistry in cls.__bases__:
            cls._choices = {}

    @classmethod
    def register_subclass(cls, name):
        def register(choice):
            cls._choices[name] = choice
            return choice

        return register

    @classmethod
    def get_known_choices(cls):
        return cls._choices

    @classmethod
    def get_choice_class(cls, name):
        return cls._choices[name]

    @classmethod
    def get_choice_name(cls, choice):
        return next(name for name, known in cls._choices.items() if known is choice)


def decode(cls, values):
    """The configuration that plain values describe; `type` chooses among the classes of a registry."""
    values = dict(values)
    if issubclass(cls, ChoiceRegistry):
        cls = cls.get_choice_class(values.pop("type"))
    known = {field.name: field for field in fields(cls)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise DecodingError(f"The fields `{', '.join(unknown)}` are not valid for {cls.__name__}")
    missing = [
        name
        for name, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING and name not in values
    ]
    if missing:
        raise DecodingError(f"Missing required field(s) `{', '.join(missing)}` for {cls.__name__}")
    return cls(**values)

# SPDX-License-Identifier: Apache-2.0
"""Extension of griffe, for the API reference: a class also shows the parameters that it passes to its base class."""

from __future__ import annotations

from typing import Any

import griffe


class InheritedParameters(griffe.Extension):
    """Add the keyword-only parameters of a base class of the same package to a constructor with `**kwargs`."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change all classes of the package."""
        for cls in _classes(pkg):
            if "__init__" in cls.members:
                _add_parameters(cls)


def _classes(module: griffe.Module) -> list[griffe.Class]:
    nested = [found for each in module.modules.values() if not each.is_alias for found in _classes(each)]
    return [cls for cls in module.classes.values() if not cls.is_alias] + nested


def _add_parameters(cls: griffe.Class) -> None:
    own = cls.members["__init__"].parameters
    if not any(parameter.kind is griffe.ParameterKind.var_keyword for parameter in own):
        return
    rest = own[-1]
    for base in cls.mro():
        if not base.path.startswith("airflow_flowservice.") or "__init__" not in base.members:
            continue
        for parameter in base.members["__init__"].parameters:
            if parameter.kind is griffe.ParameterKind.keyword_only and parameter.name not in own:
                own.add(parameter)
    # `**kwargs` stays last.
    del own[rest.name]
    own.add(rest)

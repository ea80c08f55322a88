"""How the site reads docstrings: references become links, and methods that Python calls are left out."""

import re

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites every docstring when it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Links for full names, code for others."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(_link, obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        """Without ``__init__`` and its like: what they do is their name."""
        for name in [name for name in cls.members if name.startswith("_")]:
            if name != "__init__":
                cls.del_member(name)


def _link(found: re.Match[str]) -> str:
    name = found[1]
    return f"[`{name}`][{name}]" if name.startswith("skajax.") else f"`{name}`"

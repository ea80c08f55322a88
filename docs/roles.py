"""How the site reads docstrings: links for references, code for examples, nothing of what Python calls."""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites every docstring when it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Links for full names, code for others."""
        if obj.docstring:
            text = ROLE.sub(_link, obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(_code, text)

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        """Without ``__init__`` and its like: what they do is their name."""
        for name in [name for name in cls.members if name.startswith("_")]:
            if name != "__init__":
                cls.del_member(name)


def _code(found: re.Match[str]) -> str:
    return f"{found[1]}```pycon\n{found[0]}\n{found[1]}```"


def _link(found: re.Match[str]) -> str:
    name = found[1]
    return f"[`{name}`][{name}]" if name.startswith("skajax.") else f"`{name}`"

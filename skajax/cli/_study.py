"""``python -m skajax study``: one of the studies that need no data of the user's, into a folder."""

STUDIES = ("architectures", "rules", "schedules")
"""Functions of ``skajax.study`` that take a folder, and write what they find into it."""


def study(name: str, out: str, quick: bool) -> int:
    """Run it, and say what is in the folder; 0. The same command goes on where it was killed."""
    import skajax as ska

    getattr(ska.study, name)(out, quick=quick)
    print(f"{out}: {name}; read {out}/{name}.md")
    return 0

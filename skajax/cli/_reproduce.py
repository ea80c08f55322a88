"""``skajax reproduce``: the paper's experiments, figures and claims, into a folder."""


def reproduce(*, out: str, seeds: int | None = None, quick: bool = False) -> int:
    """The paper, whole: every experiment, figure and claim.

    For example:

        skajax reproduce --out out
        skajax reproduce --out out --quick

    Args:
        out: Folder to write into; begin with its claims.html.
        seeds: Initialisations (default 16).
        quick: 4 initialisations; it saves little time.
    """
    import time
    from collections import Counter

    from skajax import study

    start = time.perf_counter()
    result = study.reproduce(out, seeds=seeds, quick=quick)
    for claim, finding in result.judged:
        print(f"{claim.number:>3}  {finding.verdict:<30} {claim.title}")
    counts = Counter(str(finding.verdict) for _, finding in result.judged)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    seconds = time.perf_counter() - start
    print(f"{len(result.files)} files in {out}, after {seconds:.0f} s; read {out}/claims.html")
    return 0

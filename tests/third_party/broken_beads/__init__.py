"""A package that fails on import."""

raise RuntimeError("the glass\nis broken")

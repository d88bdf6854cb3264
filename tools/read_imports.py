"""Which module of a package imports which, read from the sources with `ast`; nothing of it is run.

The facts, for `tests/test_imports.py`, which checks them, and for `tools/draw_layout.py`, which draws them.
Modules are named from below the package ("volumes.base"), a folder's `__init__` by
the folder ("volumes"), the package's own by the package ("mnist3d").
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BY_NAME = ("import_module", "__import__")  # importlib's functions, which are handed a module's name
UNREADABLE = ("exec", "eval")  # may import anything


@dataclass(frozen=True, order=True)
class Import:
    """One name taken out of one module.

    Args:
        importer: the module in which the import stands, at its top or inside a function.
        imported: the module it names; one that does not exist stays as it is written.
        name: what is taken out of that module; "" for the module itself, "*" for all.
        line: of the importer.
    """

    importer: str
    imported: str
    name: str
    line: int


@dataclass(frozen=True, order=True)
class Hidden:
    """A call that imports by a name which `imports` cannot follow.

    Args:
        importer: the module in which it stands.
        names_us: whether the name is written out and is one of ours, also in parts.
        line: of the importer.
    """

    importer: str
    names_us: bool
    line: int


def modules(package: Path) -> dict[str, Path]:
    """Every module of the package and its file, sorted by name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or package.name] = path
    return dict(sorted(found.items()))


def folder(module: str) -> str:
    """The folder right below the package that holds the module; one that lies beside the folders is its own."""
    return module.partition(".")[0]


def imports(package: Path) -> list[Import]:
    """All imports of the package's own modules, also those inside functions and for type checkers only."""
    known = modules(package)
    return sorted({entry for module, path in known.items() for entry in _imports_of(module, path, package, known)})


def hidden_imports(package: Path) -> list[Hidden]:
    """All calls that import by a string, or run one; those of other packages that are written out are left out."""
    return sorted(entry for module, path in modules(package).items() for entry in _hidden_in(module, path, package))


def foreign_imports(package: Path) -> set[tuple[str, str]]:
    """Pairs of a module and the name of a package that is not this one and that it imports, also inside functions."""
    found = set()
    for module, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {(module, name.partition(".")[0]) for name in names}
    return {(module, name) for module, name in found if name != package.name}


def circle(edges: set[tuple[str, str]]) -> list[str]:
    """A walk along edges that ends where it began; empty where there is none."""
    following: dict[str, list[str]] = {}
    for start, end in sorted(edges):
        following.setdefault(start, []).append(end)
    done: set[str] = set()
    for start in following:
        walk: list[str] = []
        if found := _walk_on(start, walk, following, done):
            return found
    return []


def _walk_on(module: str, walk: list[str], following: dict[str, list[str]], done: set[str]) -> list[str]:
    if module in walk:
        return [*walk[walk.index(module) :], module]
    if module in done:
        return []
    walk.append(module)
    for after in following.get(module, []):
        if found := _walk_on(after, walk, following, done):
            return found
    walk.pop()
    done.add(module)
    return []


def _imports_of(module: str, path: Path, package: Path, known: dict[str, Path]) -> Iterator[Import]:
    here = [package.name, *path.parent.relative_to(package).parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (target := _below(alias.name.split("."), package)) is not None:
                    yield Import(module, target, "", node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = here[: max(0, len(here) - node.level + 1)] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            for alias in node.names:
                inner = _below([*base, alias.name], package)
                if inner in known and inner != package.name:
                    yield Import(module, inner, "", node.lineno)
                elif (target := _below(base, package)) is not None:
                    yield Import(module, target, alias.name, node.lineno)


def _below(parts: list[str], package: Path) -> str | None:
    """The name from below the package; None for another package's module."""
    if parts[:1] != [package.name]:
        return None
    return ".".join(parts[1:]) or package.name


def _hidden_in(module: str, path: Path, package: Path) -> Iterator[Hidden]:
    tree = ast.parse(path.read_text())
    callers = {*BY_NAME}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            callers |= {alias.asname for alias in node.names if alias.name in BY_NAME and alias.asname}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        named = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if named in callers:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            ours = bool(arguments) and _names_us(arguments[0], package)
            if ours or not (arguments and isinstance(arguments[0], ast.Constant)):
                yield Hidden(module, ours, node.lineno)
        elif isinstance(node.func, ast.Name) and named in UNREADABLE:
            yield Hidden(module, False, node.lineno)


def _names_us(written: ast.expr, package: Path) -> bool:
    """Whether an expression spells one of our modules, in one piece, in an f-string, or added up."""
    for node in ast.walk(written):
        if isinstance(node, ast.Name) and node.id in ("__package__", "__name__"):
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if text.startswith(".") or text.partition(".")[0] == package.name:
                return True
    return False

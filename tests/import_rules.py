"""Rules about who imports whom in a package: each takes it and the list of its parts, and says what is wrong.

The check of what `tools/read_imports.py` finds; the list stands in `test_imports.py`.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

from tools.read_imports import circle, folder, hidden_imports, imports, modules

ROOT_FILES = 6
LINES = 350


@dataclass(frozen=True)
class Part:
    """A folder of the package, or a file beside the folders.

    Args:
        sentence: what it is; the first line of its docstring. None for a file.
        imports: the folders it may import, from the top down: all their modules, or only those named.
    """

    sentence: str | None
    imports: str = ""

    @property
    def entries(self) -> list[str]:
        """The names in `imports`."""
        return self.imports.split()


@dataclass(frozen=True)
class Layout:
    """What a package should look like.

    Args:
        parts: from the top down; a part imports only from below.
        by_name: modules that may import by a name that is handed to them, and whose name that is.
    """

    parts: dict[str, Part]
    by_name: dict[str, str] = field(default_factory=dict)


def unplaced(package: Path, layout: Layout) -> list[str]:
    """Folders and files without a place in the list, and places without a folder."""
    found = {folder(module) for module in modules(package)}
    wrong = [
        f"{name}: has no place in the layout; give it one in test_imports.py and in the design"
        for name in found - {*layout.parts}
    ]
    return wrong + [f"{name}: there is no such folder or file" for name in {*layout.parts} - found]


def wrong_list(package: Path, layout: Layout) -> list[str]:
    """Entries of the list that point upwards, are out of order, or name what is not there."""
    known, order, wrong = modules(package), [*layout.parts], []
    for name, part in layout.parts.items():
        wrong += [f"{name}: {entry} is no module" for entry in part.entries if entry not in known]
        entries, below = part.entries, order[order.index(name) + 1 :]
        wrong += [f"{name}: {entry} is not below it" for entry in entries if folder(entry) not in below]
        places = [order.index(folder(entry)) for entry in entries if folder(entry) in order]
        wrong += [f"{name}: {part.imports} is not in the layout's order"] if places != sorted(places) else []
        wrong += [f"{name}: {entry} is listed twice" for entry in {*entries} if entries.count(entry) > 1]
        whole = [entry for entry in entries if "." in entry and folder(entry) in entries]
        wrong += [f"{name}: {entry} is listed beside its whole folder" for entry in whole]
    return wrong


def wrong_imports(package: Path, layout: Layout) -> list[str]:
    """Imports of what is not listed, and of what does not exist."""
    known, wrong = modules(package), []
    for entry in imports(package):
        place = f"{entry.importer}:{entry.line}"
        own, allowed = folder(entry.importer), layout.parts[folder(entry.importer)].entries
        if entry.imported not in known:
            wrong.append(f"{place} imports {entry.imported}, which does not exist")
        elif folder(entry.imported) != own and not _listed(entry.imported, allowed):
            wrong.append(f"{place} imports {entry.imported}; it may import {', '.join(allowed) or 'nothing'}")
    return [*dict.fromkeys(wrong)]  # once for each line, whatever it takes


def unused_entries(package: Path, layout: Layout) -> list[str]:
    """Entries of the list that no import needs."""
    wrong, found = [], imports(package)
    for name, part in layout.parts.items():
        taken = [entry.imported for entry in found if folder(entry.importer) == name]
        unused = [entry for entry in part.entries if not any(_listed(module, [entry]) for module in taken)]
        wrong += [f"{name}: nothing there imports {entry}" for entry in unused]
    return wrong


def circles(package: Path, layout: Layout) -> list[str]:
    """Modules that import each other in a circle, inside functions too."""
    found = circle({(entry.importer, entry.imported) for entry in imports(package)})
    return [" imports ".join(found)] if found else []


def hidden(package: Path, layout: Layout) -> list[str]:
    """Imports that hide in a string, and modules that need not be let import by a name."""
    found = hidden_imports(package)
    wrong = [f"{each.importer}:{each.line} hides an import of ours in a string" for each in found if each.names_us]
    others = {each.importer: each.line for each in found if not each.names_us}
    wrong += [
        f"{name}:{line} imports by a name that it is handed"
        for name, line in others.items()
        if name not in layout.by_name
    ]
    return wrong + [
        f"by_name[{name}]: nothing there imports by a name" for name in layout.by_name if name not in others
    ]


def private_imports(package: Path, layout: Layout) -> list[str]:
    """A module or a name that starts with _ and is imported outside its folder."""
    wrong = []
    for entry in imports(package):
        place = f"{entry.importer}:{entry.line}"
        home, _, last = entry.imported.rpartition(".")
        if last.startswith("_") and entry.importer != home and not entry.importer.startswith(f"{home}."):
            wrong.append(f"{place} imports {entry.imported}, which belongs to its folder")
        own_name = entry.name.startswith("_") and not entry.name.startswith("__")
        if own_name and folder(entry.importer) != folder(entry.imported):
            wrong.append(f"{place} imports {entry.name}, which belongs to {entry.imported}")
    return wrong


def too_long(package: Path, layout: Layout) -> list[str]:
    """More files at the root, or more lines in a file, than one wants to read."""
    lines = {module: len(path.read_text().splitlines()) for module, path in modules(package).items()}
    wrong = [f"{module}: {count} lines; {LINES} at most" for module, count in lines.items() if count > LINES]
    count = len([*package.glob("*.py")])
    return wrong + ([f"{count} files at the root; {ROOT_FILES} at most"] if count > ROOT_FILES else [])


def wrong_sentences(package: Path, layout: Layout) -> list[str]:
    """Folders whose docstring does not begin with what the list says they are."""
    known, wrong = modules(package), []
    for name, part in layout.parts.items():
        docstring = ast.get_docstring(ast.parse(known[name].read_text())) or ""
        if part.sentence is not None and docstring.partition("\n")[0] != part.sentence:
            wrong.append(f"{name}: the first line of its `__init__` must be: {part.sentence}")
    return wrong


def wrong_handing_on(package: Path, layout: Layout) -> list[str]:
    """Folders that hand names on without `__all__`, or other names than those in it."""
    wrong, found = [], imports(package)
    for module, path in modules(package).items():
        if path.name != "__init__.py":
            continue
        listed, bound = _handed_on(ast.parse(path.read_text()))
        taken = {each.name for each in found if each.imported == module and folder(each.importer) != folder(module)}
        handed = {each.name for each in found if each.importer == module and each.name} | (taken - {""})
        if listed is None:
            wrong += [f"{module}: hands on {', '.join(sorted(handed))} without `__all__`"] if handed else []
            continue
        wrong += [f"{module}: `__all__` has {name}, which is not there" for name in sorted(listed - bound)]
        wrong += [f"{module}: {name} is taken, but not in `__all__`" for name in sorted(taken - listed - {""})]
    return wrong


def _listed(module: str, allowed: list[str]) -> bool:
    """Whether it, or the folder right below the package that holds it, is in the list: exact names."""
    return module in allowed or folder(module) in allowed


def _handed_on(tree: ast.Module) -> tuple[set[str] | None, set[str]]:
    """What `__all__` lists, None without one, and what the module binds at its top."""
    listed, bound = None, set()
    tops = [*tree.body, *(inner for node in tree.body if isinstance(node, ast.If) for inner in node.body)]
    for node in tops:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            bound |= names
            listed = set(ast.literal_eval(node.value)) if "__all__" in names else listed
    return listed, bound


RULES = [unplaced, wrong_list, wrong_imports, unused_entries, circles, hidden, private_imports, too_long]
RULES += [wrong_sentences, wrong_handing_on]

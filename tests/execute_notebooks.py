"""Executes notebooks one after the other, as Jupyter does, and writes them with their outputs.

    python tests/execute_notebooks.py FOLDER NOTEBOOK.ipynb ...

One kernel for all of them, emptied in between: what one imports takes five seconds, and no name is left for the next.
It works in FOLDER. A process of its own for tests/test_notebooks.py: nbclient leaves sockets open until it ends.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

NEVER = 10**6  # seconds: what hangs is ended by who runs this, at a load that nobody here knows


def execute(folder: Path, notebooks: list[Path]) -> None:
    """Write each of the notebooks, executed, into the folder.

    Raises:
        CellExecutionError: a cell failed; its traceback is in the message.
    """
    # Sockets in a folder, and no ports that other programs reach. The folders of tests have names too long for them.
    with tempfile.TemporaryDirectory() as sockets:
        manager = KernelManager(
            kernel_name="python3",
            transport="ipc" if os.name == "posix" else "tcp",
            connection_file=str(Path(sockets) / "kernel.json"),
        )
        manager.start_kernel(cwd=str(folder))
        try:
            for path in notebooks:
                notebook = nbformat.read(path, as_version=4)
                notebook.cells.append(nbformat.v4.new_code_cell("%reset -f"))
                NotebookClient(notebook, km=manager, timeout=None, startup_timeout=NEVER).execute()
                notebook.cells.pop()
                nbformat.write(notebook, folder / path.name)
        finally:
            manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    execute(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])

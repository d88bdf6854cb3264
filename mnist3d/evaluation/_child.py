"""The process that trains classifiers beside a run: images in on stdin, shares done and weights out on stdout.

Started by `background`. It writes no file, and ends when whoever started it does.
"""

import os
import sys
import threading
from typing import BinaryIO

import torch
from safetensors.torch import load

from .background import LENGTH, SHARE, WEIGHTS
from .classifiers import packed_weights
from .learning import trained_networks


def main() -> None:
    """Read, train, answer."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):  # nothing else may come between the answers
        os.dup2(nowhere, number)
    length = int.from_bytes(sys.stdin.buffer.read(LENGTH), "little")
    parts = load(sys.stdin.buffer.read(length))
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    torch.set_num_threads(1)
    try:
        outputs, steps = parts["numbers"].tolist()
        networks = trained_networks(
            parts["images"],
            parts["classes"],
            outputs,
            steps,
            tell=lambda share: _say(answers, b"%s %.4f\n" % (SHARE, share)),
        )
        content = packed_weights(networks)
        _say(answers, b"%s %d\n%s" % (WEIGHTS, len(content), content))
    except Exception as error:
        _say(answers, f"{type(error).__name__}: {' '.join(str(error).split())}\n".encode())
    os._exit(0)  # without waiting for the thread that reads


def _say(answers: BinaryIO, words: bytes) -> None:
    answers.write(words)
    answers.flush()


def _end_with_the_run() -> None:
    """Stdin closes when the run does, even when it was killed; nothing more comes through it."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()

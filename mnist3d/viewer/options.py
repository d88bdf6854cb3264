"""What `--viewer.*` sets."""

from dataclasses import dataclass


@dataclass
class ViewerOptions:
    """The web page that shows the volume during training.

    Args:
        enabled: Whether to serve the page.
        port: Port of the page, 0 to 65535; if it is taken, the next free one. 0: any free port.
        host: Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for everybody who can reach
            it and has the token of the printed address.
        share: Largest part of the run's processor time on a core that the page may use during training, > 0 and <= 1.
            Up to two seconds of unused time are saved, so that turning is smooth.
        read_only: Whether nobody can pause, stop or download on the page, also not with the token of its address.
    """

    enabled: bool = True
    port: int = 8328
    host: str = "127.0.0.1"
    share: float = 0.02
    read_only: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"viewer.port={self.port}: must be in [0, 65535]")
        if not self.host.strip():
            raise ValueError(f"viewer.host={self.host!r}: give an address of this machine, such as 127.0.0.1")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"viewer.share={self.share}: must be > 0 and <= 1")

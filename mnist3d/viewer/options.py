"""What `--viewer.*` sets."""

from dataclasses import dataclass


@dataclass
class ViewerOptions:
    """The web page that shows the sculpture while it is made.

    Args:
        enabled: Serve the page during training.
        port: Where, 0 to 65535; the next free one when it is taken, 0 for any.
        host: Which address to listen on; 127.0.0.1 is this machine alone, 0.0.0.0 everybody who can reach it.
        share: Of the processor time that the run gets on a core, what drawing may take while it trains, in (0, 1];
            up to two seconds are saved, so that turning is fluid.
    """

    enabled: bool = True
    port: int = 8328
    host: str = "127.0.0.1"
    share: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"viewer.port={self.port}: must be in [0, 65535]")
        if not self.host.strip():
            raise ValueError(f"viewer.host={self.host!r}: give an address of this machine, such as 127.0.0.1")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"viewer.share={self.share}: must be > 0 and <= 1")

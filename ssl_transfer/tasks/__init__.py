"""What a run trains: a module from a batch to ``{"loss": this process's share, ...}``."""

from ssl_transfer.tasks.pretrain import SimCLR as SimCLR
from ssl_transfer.tasks.transfer import RelaxedContrastiveTransfer as RelaxedContrastiveTransfer

"""What a run trains: a module from a batch to ``{"loss": this process's share, ...}``."""

from ssl_transfer.tasks.pretrain import SimCLR as SimCLR
from ssl_transfer.tasks.transfer import CRD as CRD
from ssl_transfer.tasks.transfer import SEED as SEED
from ssl_transfer.tasks.transfer import FeatureMapTransfer as FeatureMapTransfer
from ssl_transfer.tasks.transfer import RelationalTransfer as RelationalTransfer
from ssl_transfer.tasks.transfer import SoftTargets as SoftTargets

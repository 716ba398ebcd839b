"""What a run trains: a module from a batch to ``{"loss": this process's share, ...}``."""

from ssl_transfer.tasks.classify import Classify as Classify
from ssl_transfer.tasks.classify import LabeledTransfer as LabeledTransfer
from ssl_transfer.tasks.metric import MetricLearning as MetricLearning
from ssl_transfer.tasks.moco import MoCo as MoCo
from ssl_transfer.tasks.moco import MoCoV3 as MoCoV3
from ssl_transfer.tasks.pretrain import SimCLR as SimCLR
from ssl_transfer.tasks.transfer import CRD as CRD
from ssl_transfer.tasks.transfer import SEED as SEED
from ssl_transfer.tasks.transfer import FeatureMapTransfer as FeatureMapTransfer
from ssl_transfer.tasks.transfer import RelationalTransfer as RelationalTransfer
from ssl_transfer.tasks.transfer import SoftTargets as SoftTargets
from ssl_transfer.tasks.transfer import Transfer as Transfer

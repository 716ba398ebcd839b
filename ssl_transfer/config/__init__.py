"""The recipe: eight keys, strict, every problem of a file told at once. Imports no torch, so a typo fails in a moment.

A default is written here and nowhere else. :func:`load` reads a file, puts a teacher's recipe in the place of its path,
applies ``key.path=value`` overrides and validates; what it returns is complete, and can be saved and run by itself.
"""

from ssl_transfer.config.data import Augment as Augment
from ssl_transfer.config.data import Data as Data
from ssl_transfer.config.loading import dump as dump
from ssl_transfer.config.loading import load as load
from ssl_transfer.config.loading import load_teacher as load_teacher
from ssl_transfer.config.messages import suggest as suggest
from ssl_transfer.config.model import Model as Model
from ssl_transfer.config.model import Teacher as Teacher
from ssl_transfer.config.schema import Recipe as Recipe
from ssl_transfer.config.schema import differences as differences
from ssl_transfer.config.schema import identity as identity
from ssl_transfer.config.schema import identity_hash as identity_hash
from ssl_transfer.config.scores import KNN as KNN
from ssl_transfer.config.scores import LEARNING as LEARNING
from ssl_transfer.config.scores import Agreement as Agreement
from ssl_transfer.config.scores import BestOnTest as BestOnTest
from ssl_transfer.config.scores import Classification as Classification
from ssl_transfer.config.scores import Clustering as Clustering
from ssl_transfer.config.scores import FewShot as FewShot
from ssl_transfer.config.scores import Finetune as Finetune
from ssl_transfer.config.scores import LinearProbe as LinearProbe
from ssl_transfer.config.scores import Monitor as Monitor
from ssl_transfer.config.scores import Retrieval as Retrieval
from ssl_transfer.config.scores import Score as Score
from ssl_transfer.config.tasks import CRD as CRD
from ssl_transfer.config.tasks import PKT as PKT
from ssl_transfer.config.tasks import RKD as RKD
from ssl_transfer.config.tasks import SEED as SEED
from ssl_transfer.config.tasks import VID as VID
from ssl_transfer.config.tasks import AttentionTransfer as AttentionTransfer
from ssl_transfer.config.tasks import Classify as Classify
from ssl_transfer.config.tasks import CorrelationCongruence as CorrelationCongruence
from ssl_transfer.config.tasks import DarkRank as DarkRank
from ssl_transfer.config.tasks import FitNet as FitNet
from ssl_transfer.config.tasks import Metric as Metric
from ssl_transfer.config.tasks import MoCo as MoCo
from ssl_transfer.config.tasks import MoCoV3 as MoCoV3
from ssl_transfer.config.tasks import Pretraining as Pretraining
from ssl_transfer.config.tasks import RelaxedContrastive as RelaxedContrastive
from ssl_transfer.config.tasks import RelaxedMultiSimilarity as RelaxedMultiSimilarity
from ssl_transfer.config.tasks import SimCLR as SimCLR
from ssl_transfer.config.tasks import SimilarityPreserving as SimilarityPreserving
from ssl_transfer.config.tasks import SoftTargets as SoftTargets
from ssl_transfer.config.tasks import Task as Task
from ssl_transfer.config.tasks import Transfer as Transfer
from ssl_transfer.config.training import Optim as Optim
from ssl_transfer.config.training import Train as Train

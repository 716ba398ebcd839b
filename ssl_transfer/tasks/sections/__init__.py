"""``task``: what is learned. One section a kind, which builds the module that is trained. Loads no torch by itself."""

from typing import Annotated

from pydantic import Field

from ssl_transfer.tasks.sections.labels import LabelTask
from ssl_transfer.tasks.sections.pretraining import PretrainingTask
from ssl_transfer.tasks.sections.transfer import TransferTask

Task = Annotated[PretrainingTask | LabelTask | TransferTask, Field(discriminator="kind")]

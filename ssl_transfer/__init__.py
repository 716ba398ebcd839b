"""Turn a self-supervised image teacher into a smaller or better student.

Light on purpose: importing the package loads neither torch nor timm. Import what you need from its parts::

    from ssl_transfer.losses import relaxed_contrastive
    from ssl_transfer.models import create_backbone
    from ssl_transfer.probes import knn_accuracy
"""

from ssl_transfer._version import __version__ as __version__

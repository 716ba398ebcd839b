"""Clustering: do k-means clusters of the test images agree with their classes? NMI and AMI.

accelerate launch eval/clustering.py runs/digits-transfer
python eval/clustering.py --timm resnet18 --dataset cifar10
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.clustering import Clustering

if __name__ == "__main__":
    evaluate(__doc__, Clustering)

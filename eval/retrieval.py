"""Retrieval: each test image is searched among the others; Recall@K, MAP@R and R-precision of its class.

accelerate launch eval/retrieval.py runs/digits-transfer
python eval/retrieval.py --timm resnet18 --dataset cifar10 --k 1 10 100
python eval/retrieval.py runs/digits-transfer --layer output --metric euclidean
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.retrieval import Retrieval

if __name__ == "__main__":
    evaluate(__doc__, Retrieval)

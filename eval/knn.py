"""Weighted cosine nearest neighbors on frozen features (Wu et al., CVPR 2018): nothing is trained or chosen.

accelerate launch eval/knn.py runs/digits-transfer
python eval/knn.py --timm resnet18 --dataset cifar10 --k 20 200
python eval/knn.py --features features.npz --temperature 0.07 0.1
python eval/knn.py runs/digits-transfer --layer projection --majority --metric euclidean
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.knn import KNN

if __name__ == "__main__":
    evaluate(__doc__, KNN)

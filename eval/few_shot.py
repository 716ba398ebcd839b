"""Few-shot: logistic regression on a few labeled images of each class, mean ± sd over draws of them.

accelerate launch eval/few_shot.py runs/digits-transfer
python eval/few_shot.py --timm resnet18 --dataset cifar10 --labels-per-class 1 5 10 --fractions 0.01 0.1
python eval/few_shot.py --features features.npz --draws 50
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.few_shot import FewShot

if __name__ == "__main__":
    evaluate(__doc__, FewShot)

"""Linear probe: a linear classifier on frozen features, its setting chosen on held-out training images.

accelerate launch eval/linear_probe.py runs/digits-transfer
python eval/linear_probe.py --timm resnet18 --dataset cifar10
python eval/linear_probe.py --features features.npz --protocol sgd
accelerate launch eval/linear_probe.py runs/cifar10-transfer --protocol augmented --epochs 100

docs/evaluation.md defines the protocols: lbfgs (the default), sgd as in DINOv2, augmented as in MoCo and SimCLR.
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.linear_probe import LinearProbe

if __name__ == "__main__":
    evaluate(__doc__, LinearProbe)

"""Fine-tuning: the whole network and a linear layer, trained on a labeled fraction of each class as SimCLR does.

python eval/finetune.py runs/digits-transfer --fraction 0.1 --augment digits
python eval/finetune.py --timm resnet18 --dataset cifar10 --fraction 0.01 --epochs 60
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.finetune import Finetune

if __name__ == "__main__":
    evaluate(__doc__, Finetune)

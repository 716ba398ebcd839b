"""Agreement: how much of a teacher's geometry a student has, on the same test images and without their labels.

accelerate launch eval/agreement.py runs/digits-transfer --teacher runs/digits-simclr
python eval/agreement.py runs/cifar10-transfer --teacher timm:resnet18 --k 10
python eval/agreement.py --features student.npz --teacher teacher.npz
"""

from ssl_transfer.evaluation import evaluate
from ssl_transfer.scores.agreement import Agreement

if __name__ == "__main__":
    evaluate(__doc__, Agreement)

"""What decides the features of a network, in hashes, so that kept ones are never stale."""

import hashlib

from torch import nn

from ssl_transfer.models.checkpoint import tensors_hash


def weights_hash(model: nn.Module) -> str:
    """The hash of all parameters and buffers (:func:`ssl_transfer.models.checkpoint.tensors_hash`)."""
    return tensors_hash(model.state_dict())


def structure_hash(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of what ``model`` is made of and weights do not tell, such as strides.

    Batch norms are the same whether or not their statistics run over several processes.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if isinstance(module, nn.Identity):
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            described = f"batch norm {module.eps}"
        else:  # repr would not do: an attention's number of heads is not in it
            plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
            settings = {key: plain[key] for key in sorted(plain) if key != "training" and not key.startswith("_")}
            described = f"{type(module).__qualname__} {settings}"
        digest.update(f"{name}: {described};".encode())
    return digest.hexdigest()[:16]

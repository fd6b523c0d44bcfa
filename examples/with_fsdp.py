"""FSDP2: first `fully_shard`, then the rule.

Usage: torchrun --nproc-per-node 2 examples/with_fsdp.py
"""

from digits import POINTS, accuracy, digits, make_network, make_optimizer
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import dfa


def main() -> None:
    """Train in every process that torchrun has started."""
    distributed.init_process_group("gloo")  # "nccl" on GPUs
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    pictures, classes = digits()
    model = make_network()
    for layer in (model[0], model[2], model[4]):
        fully_shard(layer)
    fully_shard(model)
    rule = dfa.DirectFeedbackAlignment(model, POINTS, seed=0)  # the same matrices in all processes
    optimizer = make_optimizer(model)
    for _ in range(30):
        optimizer.zero_grad()
        rule.backward(cross_entropy(model(pictures[rank::processes]), classes[rank::processes]))
        optimizer.step()
    rule.close()
    found = accuracy(model(pictures), classes)  # by all processes together, for each holds a part of the model
    if rank == 0:
        print(f"accuracy {found:.3f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""DistributedDataParallel: the rule is made on the wrapped model.

Usage: torchrun --nproc-per-node 2 examples/with_ddp.py
"""

from digits import POINTS, accuracy, digits, make_network, make_optimizer
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import dfa


def main() -> None:
    """Train in every process that torchrun has started."""
    distributed.init_process_group("gloo")  # "nccl" on GPUs
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    pictures, classes = digits()
    network = make_network()
    model = DistributedDataParallel(network)
    rule = dfa.DirectFeedbackAlignment(model, POINTS, seed=0)  # the same matrices in all processes
    optimizer = make_optimizer(model)
    for _ in range(30):
        optimizer.zero_grad()
        rule.backward(cross_entropy(model(pictures[rank::processes]), classes[rank::processes]))
        optimizer.step()
    rule.close()
    if rank == 0:
        print(f"accuracy {accuracy(network(pictures), classes):.3f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

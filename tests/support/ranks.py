"""Two processes under torch.distributed, as torchrun starts them."""

import torch


def on_two_ranks(train, folder):
    """What train(rank) gives on each of two ranks, which share a gloo process group."""
    torch.multiprocessing.spawn(_run, (train, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}") for rank in (0, 1)]


def _run(rank, train, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.save(train(rank), f"{folder}/rank{rank}")
    torch.distributed.destroy_process_group()

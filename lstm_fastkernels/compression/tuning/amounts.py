"""Configurations between none and a given one."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from lstm_fastkernels.compression.low_rank.config import LowRankConfig
from lstm_fastkernels.compression.pruning.config import PruneConfig
from lstm_fastkernels.weights.names import matches_any
from lstm_fastkernels.weights.shape import LstmShape

Config = PruneConfig | LowRankConfig


def config_at(config: Config, shapes: list[LstmShape]) -> Callable[[float], Config]:
    """From a share in (0, 1] of the way from none to `config` to the configuration there.

    shapes: of the LSTMs, in which the ranks to begin with are those of whole matrices. Raises
    ValueError for a config without an amount that could be less.
    """
    if isinstance(config, LowRankConfig):
        return _low_rank_at(config, shapes)
    sparsity, threshold = config.sparsity, config.threshold
    if isinstance(sparsity, Mapping):
        shares = sparsity
        return lambda share: replace(
            config, sparsity={key: share * value for key, value in shares.items()}
        )
    if sparsity is not None:
        most = sparsity
        return lambda share: replace(config, sparsity=share * most)
    if threshold is not None:
        limit = threshold
        return lambda share: replace(config, threshold=share * limit)
    raise ValueError("n_m has no amount to tune: give sparsity or threshold")


def _low_rank_at(config: LowRankConfig, shapes: list[LstmShape]) -> Callable[[float], Config]:
    amounts = config.amounts
    if config.energy is not None:
        return lambda share: LowRankConfig(
            energy={name: 1 - share * (1 - energy) for name, energy in amounts.items()}
        )
    # A pattern has one rank for all matrices that it means: the least of their own to begin with.
    whole = {
        pattern: min(
            (
                min(size)
                for shape in shapes
                for name, size in shape.matrices.items()
                if matches_any(pattern, [name])
            ),
            default=int(rank),
        )
        for pattern, rank in amounts.items()
    }
    return lambda share: LowRankConfig(
        rank={
            name: round(whole[name] + share * (rank - whole[name]))
            for name, rank in amounts.items()
        }
    )

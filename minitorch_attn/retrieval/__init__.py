"""Image retrieval: descriptors of whole images, whitening, search, and its evaluation."""

from .descriptors import GeM, RegionalMAC, gem, mac, region_vectors, rmac, spoc
from .evaluation import average_precision, mean_average_precision, precision_at_k
from .index import Index, expand_queries
from .normalization import l2_normalized
from .regions import Region, region_grid
from .reranking import reciprocal_distances, rerank
from .whitening import PCAWhitening

__all__ = [
    "GeM",
    "Index",
    "PCAWhitening",
    "Region",
    "RegionalMAC",
    "average_precision",
    "expand_queries",
    "gem",
    "l2_normalized",
    "mac",
    "mean_average_precision",
    "precision_at_k",
    "reciprocal_distances",
    "region_grid",
    "region_vectors",
    "rerank",
    "rmac",
    "spoc",
]

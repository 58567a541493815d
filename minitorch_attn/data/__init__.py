"""Data: datasets, batches, transforms, and the data sets and tasks of the course."""

from . import transforms
from .captions import CaptionDataset, captioned_digits
from .catalogue import cifar10, digits, fashion_mnist, mnist, photograph
from .dataset import Dataset, Subset, TensorDataset, random_split
from .dates import date_pairs
from .identities import IdentityLoader
from .images import ImageDataset, image_folder
from .loader import DataLoader
from .scenes import SceneDataset, cluttered_digits
from .sequences import SequencePairs, Vocabulary, reversal_pairs, sorting_pairs

__all__ = [
    "CaptionDataset",
    "DataLoader",
    "Dataset",
    "IdentityLoader",
    "ImageDataset",
    "SceneDataset",
    "SequencePairs",
    "Subset",
    "TensorDataset",
    "Vocabulary",
    "captioned_digits",
    "cifar10",
    "cluttered_digits",
    "date_pairs",
    "digits",
    "fashion_mnist",
    "image_folder",
    "mnist",
    "photograph",
    "random_split",
    "reversal_pairs",
    "sorting_pairs",
    "transforms",
]
